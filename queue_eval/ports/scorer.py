"""The scorer: a run's metrics."""

from typing import TYPE_CHECKING, Protocol

from queue_eval.core.case import Case
from queue_eval.core.meter import CaseMeter

if TYPE_CHECKING:
    from queue_eval.core.record import MetricResult  # see core.meter


class Scorer(Protocol):
    """The metrics of a run, applied to one case.

    What it spends is on the meter, also when it raises or is cancelled.
    """

    async def score(self, case: Case, *, skip: frozenset[str], meter: CaseMeter) -> "tuple[MetricResult, ...]":
        """Scores every metric but those in `skip`. A failing metric is a MetricResult with an error.

        JudgeError of class RUN_FATAL when no call of any worker can succeed.
        """
        ...

    async def probe(self, meter: CaseMeter) -> None:
        """One small call; JudgeError when the judge does not serve."""
        ...

    @property
    def judge_suspected_down(self) -> bool:
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
