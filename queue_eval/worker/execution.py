"""One execution of a case by this worker: what it found and spent so far."""

from dataclasses import dataclass

from queue_eval.core.case import Case
from queue_eval.core.ending import Ending
from queue_eval.core.meter import CaseMeter
from queue_eval.core.record import MetricResult, Record
from queue_eval.ports.queue import Claim


@dataclass(slots=True, kw_only=True)
class Execution:
    claim: Claim
    case: Case | None  # once it was read
    meter: CaseMeter
    started_at: float
    recorded: bool = False  # what it spent is in the store: never a second time
    kept: tuple[MetricResult, ...] = ()  # scores of earlier attempts, which need not be paid for again
    result_number: int = 1  # one more for each result of the case that was opened again

    @property
    def kept_names(self) -> frozenset[str]:
        """Return the metrics that need not be asked for again."""
        return frozenset(m.name for m in self.kept)

    @property
    def counters(self) -> dict[str, float]:
        """Return what it adds to the run's counters."""
        usage = self.meter.usage
        return {
            "judge_calls": float(usage.judge_calls),
            "retries_429": float(usage.retries_429),
            "input_tokens": float(usage.input_tokens),
            "output_tokens": float(usage.output_tokens),
            "busy_s": round(self.meter.busy.total_s, 3),
        }

    def record(
        self,
        ending: Ending,
        metrics: tuple[MetricResult, ...],
        reason: str | None,
        *,
        run_id: str,
        worker: str,
        ended_at: float,
    ) -> Record:
        claim, case, meter = self.claim, self.case, self.meter
        return Record(
            run_id=run_id,
            case_id=claim.case_id,
            ending=ending,
            execution=claim.execution,
            delivery=claim.delivery,
            worker=worker,
            started_at=self.started_at,
            ended_at=ended_at,
            busy_s=round(meter.busy.total_s, 6),
            waited_s=round(meter.waited_s, 6),
            metrics=metrics,
            reason=reason,
            usage=meter.usage,
            name=case.name if case else "",
            place=case.place if case else "",
            tags=case.tags if case else (),
        )
