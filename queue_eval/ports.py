"""Protocols between the flow and the world. One contract suite, run against every implementation, is their specification."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from queue_eval.core.attempt import ErrorClass
from queue_eval.core.case import Case
from queue_eval.core.limits import Charge
from queue_eval.core.meter import CaseMeter
from queue_eval.core.run import RunState, RunStats

if TYPE_CHECKING:
    from queue_eval.core.record import MetricResult  # see core.meter

# --- the queue -----------------------------------------------------------------------------------------------------


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
    concurrency: int | None  # cases in flight in each worker, when somebody has changed it
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

    async def claim(self, limit: int, *, used_bytes: int, capacity_bytes: int, has_suspect: bool = False) -> Claims:
        """Return due and abandoned cases to the queue, then take up to `limit` of them that fit into the capacity.

        A case larger than the capacity counts as all of it, so it runs alone. Of the cases that have crashed SUSPECT_AFTER
        times a worker gets one at a time: none when it `has_suspect` already. At the tail the claim may be a second
        execution of a case that takes too long; the first result counts. Safe to repeat when the reply was lost: it hands
        out the same.
        """
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
        """The case is terminal and its lease dropped, in one step; False when the execution no longer held it. Safe to repeat."""
        ...

    async def release(self, claim: Claim, *, delay_s: float, consume: bool, counters: dict[str, float]) -> bool:
        """Give the case back, at the front or after a delay; without `consume` the attempt is not counted."""
        ...

    async def leave(self) -> None:
        """This worker is gone."""
        ...


class Steering(Protocol):
    """Everybody's view of a run, and its brakes."""

    async def stats(self) -> RunStats:
        """NoInputError when the queue does not know the run."""
        ...

    async def hold(self, reason: str | None) -> None:
        """Claims stop for everybody; None lifts the hold."""
        ...

    async def resize(self, concurrency: int) -> None:
        """Cases in flight in each worker from now on. NoInputError when the queue does not know the run."""
        ...

    async def elect(self, role: str, ttl_s: float) -> bool:
        """True for one caller per role and `ttl_s`."""
        ...

    async def end(self, state: RunState) -> RunState:
        """The state that stands there afterwards. NoInputError when the queue does not know the run.

        FINALIZED, from DRAINED alone: the report is published, the run's keys expire soon, its entries in shared registries go at once.
        ABORTED, unless the run is over: nobody claims any more, for good.
        """
        ...


# --- the store -----------------------------------------------------------------------------------------------------


class Store(Protocol):
    """Named objects of one run. Durable when a call returns; a torn object counts as absent."""

    async def create(self, name: str, data: bytes) -> bool:
        """Create-once: False when the object is already there, unchanged."""
        ...

    async def put(self, name: str, source: bytes | Path) -> None:
        """Create or replace in one step."""
        ...

    async def get(self, name: str) -> bytes | None: ...

    def names(self, prefix: str) -> AsyncIterator[str]:
        """Names below `prefix`, in no order."""
        ...

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """As `get`, for many at once, in their order."""
        ...


# --- the judge -----------------------------------------------------------------------------------------------------


class JudgeError(Exception):
    """A failed judge call, classed. `admitted`: the request reached the judge and counts as a call."""

    def __init__(
        self,
        message: str,
        kind: ErrorClass,
        *,
        admitted: bool = False,
        rate_limited: bool = False,
        retry_after_s: float | None = None,
        limits: dict[str, float] | None = None,
        is_invalid_answer: bool = False,
        is_unexplained: bool = False,
        has_changed_request: bool = False,
        is_rejected: bool = False,
        is_proxys_own: bool = False,
        is_timeout: bool = False,
    ) -> None:
        """`is_invalid_answer`: it gave no usable text. `is_unexplained`: nothing says whether it means one case or all.
        `has_changed_request`: the next request leaves out what this one was rejected for, so it is no attempt.
        `is_rejected`: the request was read, and no model has seen it.
        `is_proxys_own`: a proxy before the judge turned it away by itself; while others are served, that is a limit.
        `is_timeout`: a gateway has given the judge up, which may have too many calls.
        """
        super().__init__(message)
        self.kind = kind
        self.is_invalid_answer = is_invalid_answer
        self.is_unexplained = is_unexplained
        self.has_changed_request = has_changed_request
        self.is_rejected = is_rejected
        self.is_proxys_own = is_proxys_own
        self.is_timeout = is_timeout
        self.admitted = admitted
        self.rate_limited = rate_limited
        self.retry_after_s = retry_after_s
        self.limits = limits or {}


@dataclass(frozen=True, slots=True)
class TokenChoice:
    """One token of an answer, and what might have stood in its place; natural logarithms of probabilities."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    text: str  # a JSON document when a schema was asked for
    input_tokens: int | None
    output_tokens: int | None
    model: str | None = None  # which model the server says has answered
    is_cut: bool = False  # the server ended it at a limit of tokens
    tokens: tuple[TokenChoice, ...] | None = None  # None: the server does not tell
    limits: dict[str, float] = field(
        default_factory=dict
    )  # per minute, by dimension, as the answer's headers name them


class Judge(Protocol):
    """One request to the judge model. It never retries."""

    async def ask(self, prompt: str, schema: type[Any] | None) -> Answer:
        """`schema`: the pydantic model that the answer must fit, or None for free text. JudgeError otherwise."""
        ...

    async def close(self) -> None: ...


class WeighingJudge(Judge, Protocol):
    """A judge that may tell how probable the tokens of its answer were."""

    @property
    def most_logprobs(self) -> int:
        """Alternatives to a token that it tells at most; 0 when it tells none, as it may turn out."""
        ...

    async def ask_weighed(self, prompt: str, top_logprobs: int) -> Answer:
        """Return free text with its tokens. JudgeError otherwise."""
        ...


class Scorer(Protocol):
    """The metrics of a run, applied to one case. What it spends is on the meter, also when it raises or is cancelled."""

    async def score(self, case: Case, *, skip: frozenset[str], meter: CaseMeter) -> "tuple[MetricResult, ...]":
        """Scores every metric but those in `skip`. A failing metric is a MetricResult with an error.

        JudgeError of class RUN_FATAL when nobody's calls can succeed.
        """
        ...

    async def probe(self, meter: CaseMeter) -> None:
        """One small call; JudgeError when the judge does not serve."""
        ...

    @property
    def judge_looks_down(self) -> bool:
        """Nothing has succeeded since a call failed: ask with `probe` before the failure is blamed on a case."""
        ...

    @property
    def waiting(self) -> int:
        """Judge calls that wait for the limiter now."""
        ...

    @property
    def calls_ended(self) -> int:
        """Judge calls that had an answer or failed, so far."""
        ...

    async def close(self) -> None: ...


# --- the limiter ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """The limiter's grant for one judge call."""

    charge: Charge  # taken at release; settled later with the actual use
    waited_s: float
    granted_at: float = 0.0  # by the process' clock
    generation: str = ""  # of the limiter's state; a permit of another one settles nothing
    serial: int = 0  # counts releases: tells which of them were before a cut


class Limiter(Protocol):
    """One queue for everybody who shares a judge account and model."""

    async def acquire(self, charge: Charge, again: Callable[[], Charge] | None = None) -> Permit:
        """Wait in the queue with the estimated `charge`.

        `again`: the estimate by now. A call that has become dearer while it waited is not let go at the old price.
        """
        ...

    @property
    def output_tokens(self) -> float | None:
        """What an answer takes in the mean, as a process has last told the others; None: no process has."""
        ...

    def answers_take(self, output_tokens: float) -> None:
        """Share the mean length of an answer with the other processes, which may have seen none yet."""
        ...

    def settle(self, permit: Permit, used: Charge, *, answered: bool = False) -> None:
        """What the call really took; core.limits.NO_CHARGE when the request never left. Once per permit.

        `answered`: the judge has served it, in the time since the permit.
        """
        ...

    def timed_out(self, permit: Permit) -> None:
        """The judge gave no answer in time: it has too many calls. Settles the permit too."""
        ...

    def rate_limited(self, permit: Permit, retry_after_s: float | None) -> None:
        """The judge answered 429: everybody pauses. Settles the permit too."""
        ...

    def observed(self, per_minute: dict[str, float]) -> None:
        """Limits that the judge's answer named, by dimension."""
        ...

    async def close(self) -> None: ...


# --- time and chance -----------------------------------------------------------------------------------------------

Now = Callable[[], float]  # Unix seconds
Sleep = Callable[[float], Awaitable[None]]
Chance = Callable[[], float]  # uniform in [0, 1)
