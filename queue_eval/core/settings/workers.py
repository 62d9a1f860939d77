"""The workers of eval.yaml."""

from pydantic import Field

from queue_eval.core.settings.section import Section


class WorkerSettings(Section):
    processes: int = Field(1, ge=1, le=256, description="worker processes of `queue-eval run`")
    concurrency: int = Field(32, ge=1, le=4096, description="cases in flight in one process")
    max_mb_in_flight: float = Field(64.0, gt=0, description="size of the cases in flight in one process")
    lease_s: float = Field(12.0, ge=1, le=3600, description="a worker that is silent for this long loses its cases")
    blocked_s: float = Field(
        300.0,
        ge=1,
        description=(
            "a worker whose event loop stands still for so long, and for a lease, ends as if it were killed. Its cases"
            " go to others"
        ),
    )
    grace_s: float = Field(
        30.0, ge=0, description="after SIGTERM: time to finish what is in flight before it is released"
    )
    straggler_times: float = Field(
        3.0,
        ge=0,
        description=(
            "when nothing else is left, a case that runs so many times its expected duration is dispatched once more,"
            " to another worker. The first result counts. 0: never"
        ),
    )
    straggler_least_s: float = Field(30.0, ge=0, description="no case is a straggler before it has run this long")
    hold_timeout_s: float = Field(
        600.0, ge=0, description="`run` gives up when the judge has served no call for this long. Nothing is lost"
    )
