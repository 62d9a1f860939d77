"""The queue of a run, from the producer's side, the worker's, and that of everything else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from queue_eval.core.run import RunState, RunStats


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A case on its way into the queue."""

    case_id: str
    payload: bytes  # the case, or b"" when it travels by reference to the store
    size_bytes: int  # of the case itself, wherever it lies
    description: str  # one line for rq info and dashboards; nothing from the prompts
    earlier: int = 0  # executions of the case that the store has records of


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One delivery of a case to one worker. `execution` is the fencing token of everything that follows."""

    case_id: str
    execution: str
    delivery: int  # counts every claim
    attempt: int  # counts the claims that may fail the case
    crashes: int = 0  # deliveries that ended without a word: their worker died or lost the case
    payload: bytes  # b"" when it travels by reference to the store
    size_bytes: int
    broken: str | None = None  # why the payload cannot be used


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    state: RunState
    hold: str | None
    concurrency: int | None  # cases in flight in each worker, when `tune` has changed it
    claims: tuple[Claim, ...]


class Enqueueing(Protocol):
    """The producer's side."""

    async def open(self, manifest_identity: str) -> tuple[str, RunState]:
        """Create the run if it is new; the identity and state that stand there now."""
        ...

    async def enqueue(self, entries: Sequence[Entry]) -> int:
        """Append in order the cases that the queue does not know; how many were new. Safe to repeat."""
        ...

    async def adopt(self, entries: Sequence[Entry], *, dead: bool) -> int:
        """Count cases that the store already holds as terminal; how many were new. Safe to repeat."""
        ...

    async def seal(self, total: int) -> RunState:
        """Nothing more will be enqueued. Safe to repeat."""
        ...

    async def reopen(self, entries: Sequence[Entry]) -> int:
        """Make scored cases ready again with fresh attempts, open a finished run for them, and return how many.

        Safe to repeat.
        """
        ...

    async def retry_dead(self) -> int:
        """Dead cases become ready again with fresh attempts, and a finished run opens for them; how many."""
        ...


class Claiming(Protocol):
    """The worker's side. Every write is fenced: it happens only while `execution` still holds the case."""

    async def claim(self, limit: int, *, used_bytes: int, capacity_bytes: int, has_quarantined: bool = False) -> Claims:
        """Return due and abandoned cases to the queue, then take up to `limit` of them that fit into the capacity.

        A case larger than the capacity counts as all of it, so it runs alone. Of the cases that have crashed
        QUARANTINE_AFTER times a worker gets one at a time: none when it `has_quarantined` already. At the tail the
        claim may be a second execution of a case that takes too long; the first result counts. Safe to repeat when the
        reply was lost: it hands out the same.
        """
        ...

    async def repeat_claim(self) -> Claims:
        """Take no new case: return the claims whose reply was lost, and the run's state. Safe to repeat."""
        ...

    async def heartbeat(
        self, claims: Sequence[Claim], *, waiting: int, waited_s: Mapping[str, float] | None = None
    ) -> list[Claim]:
        """Extend the leases; those of the claims that no longer hold their case. Also shows this worker as alive.

        `waiting`: calls that wait for the limiter. `waited_s`: for how long those of each case have, if at all; a case
        that waits there takes no longer for it.
        """
        ...

    async def finish(self, claim: Claim, *, dead: str | None, counters: dict[str, float]) -> bool:
        """The case is terminal and its lease dropped, in one step; False when the execution no longer held it.

        Safe to repeat.
        """
        ...

    async def release(self, claim: Claim, *, delay_s: float, consume: bool, counters: dict[str, float]) -> bool:
        """Give the case back, at the front or after a delay; without `consume` the attempt is not counted."""
        ...

    async def leave(self) -> None:
        """This worker is gone."""
        ...


class Steering(Protocol):
    """The view of a run that all processes share, and its brakes."""

    async def stats(self) -> RunStats:
        """NoInputError when the queue does not know the run."""
        ...

    async def hold(self, reason: str | None) -> None:
        """Claims of all workers stop; None lifts the hold."""
        ...

    async def resize(self, concurrency: int) -> None:
        """Cases in flight in each worker from now on. NoInputError when the queue does not know the run."""
        ...

    async def elect(self, role: str, ttl_s: float) -> bool:
        """True for one caller per role and `ttl_s`."""
        ...

    async def end(self, state: RunState) -> RunState:
        """The state that stands there afterwards. NoInputError when the queue does not know the run.

        FINALIZED, from DRAINED alone: the report is published, the run's keys expire soon, its entries in shared
        registries go at once. ABORTED, unless the run is over: no worker claims any more, for good.
        """
        ...
