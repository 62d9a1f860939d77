"""The states of a run and the counts that describe it."""

from dataclasses import dataclass, field
from enum import StrEnum

SCORED, PASSED = "scored:", "passed:"  # begin the names of counters of one metric


class RunState(StrEnum):
    OPEN = "OPEN"  # the producer is still enqueueing
    SEALED = "SEALED"  # nothing more will be enqueued
    DRAINED = "DRAINED"  # sealed and every case terminal
    FINALIZED = "FINALIZED"  # the report is published
    ABORTED = "ABORTED"

    @property
    def over(self) -> bool:
        """Nothing is left for a worker to do."""
        return self in (RunState.DRAINED, RunState.FINALIZED, RunState.ABORTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSeen:
    name: str
    concurrency: int
    in_flight: int
    waiting: int  # judge calls that wait for the limiter
    seen_s_ago: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStats:
    """One consistent look at a run."""

    state: RunState
    total: int | None  # known once sealed
    ready: int
    delayed: int
    leased: int
    scored: int
    dead: int
    executions: int  # deliveries so far
    hold: str | None = None  # why no worker claims at the moment
    counters: dict[str, float] = field(
        default_factory=dict
        # judge_calls, retries_429, tokens, cost_usd, metric_results, and of each metric SCORED and PASSED before it
    )
    workers: tuple[WorkerSeen, ...] = ()
    now_s: float = 0.0  # the queue's clock

    @property
    def terminal(self) -> int:
        return self.scored + self.dead

    @property
    def stalled(self) -> bool:
        """Sealed, nothing waits, and not everything has ended: Redis has lost cases."""
        return (
            self.state is RunState.SEALED
            and not (self.ready or self.delayed or self.leased)
            and self.terminal < self.known
        )

    @property
    def known(self) -> int:
        """Cases that the queue knows of; the total once everything is enqueued."""
        return self.total if self.total is not None else self.ready + self.delayed + self.leased + self.terminal
