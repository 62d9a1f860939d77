"""How a run stands, as `status --json` and the finalizer's log give it."""

from dataclasses import asdict
from typing import Any

from queue_eval.core.limiter_stats import LimiterStats
from queue_eval.core.run import RunStats


def status_body(
    run_id: str, stats: RunStats, limiter: LimiterStats | None, *, most_workers: int | None = None
) -> dict[str, Any]:
    """For programs: what `status --json` prints."""
    body = {k: v for k, v in asdict(stats).items() if k != "state"}
    body["workers"] = body["workers"][:most_workers]
    in_all = {
        "count": len(stats.workers),
        "in_flight": sum(worker.in_flight for worker in stats.workers),
        "waiting": sum(worker.waiting for worker in stats.workers),
    }
    return {
        "run_id": run_id,
        "state": stats.state,
        **body,
        "workers_in_all": in_all,
        "limiter": asdict(limiter) if limiter else None,
    }
