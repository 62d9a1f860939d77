"""A run's status in one line of JSON: what `status --json` prints, and the finalizer's log carries."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from queue_eval.core.limiter_stats import LaneSeen, LimiterStats
from queue_eval.core.limits import Limits
from queue_eval.core.run import RunState, RunStats, WorkerSeen


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerTotals:
    """Of all workers, where a line names only some."""

    count: int
    in_flight: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusLine:
    run_id: str
    stats: RunStats
    workers_in_all: WorkerTotals
    limiter: LimiterStats | None

    @classmethod
    def of(
        cls, run_id: str, stats: RunStats, limiter: LimiterStats | None, *, most_workers: int | None = None
    ) -> "StatusLine":
        """`most_workers`: how many of them the line names."""
        totals = WorkerTotals(
            count=len(stats.workers),
            in_flight=sum(worker.in_flight for worker in stats.workers),
            waiting=sum(worker.waiting for worker in stats.workers),
        )
        named = replace(stats, workers=stats.workers[:most_workers])
        return cls(run_id=run_id, stats=named, workers_in_all=totals, limiter=limiter)

    def to_json(self) -> dict[str, Any]:
        stats = asdict(self.stats)
        return {
            "run_id": self.run_id,
            "state": stats.pop("state"),
            **stats,
            "workers_in_all": asdict(self.workers_in_all),
            "limiter": asdict(self.limiter) if self.limiter else None,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "StatusLine | None":
        """Return what `to_json` wrote; None for a line that another version of queue-eval wrote in another form."""
        try:
            stats = RunStats(
                **{name: int(body[name]) for name in ("ready", "delayed", "leased", "scored", "dead")},
                state=RunState(body["state"]),
                total=None if body["total"] is None else int(body["total"]),
                hold=None if body["hold"] is None else str(body["hold"]),
                executions=int(body.get("executions", 0)),
                counters={name: float(value) for name, value in body["counters"].items()},
                workers=tuple(WorkerSeen(**worker) for worker in body.get("workers", ())),
                now_s=float(body["now_s"]),
            )
            limiter = body.get("limiter")
            return cls(
                run_id=body.get("run_id", ""),
                stats=stats,
                workers_in_all=WorkerTotals(**body["workers_in_all"]),
                limiter=_limiter(limiter) if limiter else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            return None


def _limiter(body: Mapping[str, Any]) -> LimiterStats:
    parts = {field.name: body[field.name] for field in fields(LimiterStats)}
    limits = {name: Limits(**parts[name]) for name in ("limits", "headers", "rate", "outage_share")}
    lanes = tuple(LaneSeen(**{**lane, "configured": Limits(**lane["configured"])}) for lane in parts["lanes"])
    return LimiterStats(**{**parts, **limits, "lanes": lanes})
