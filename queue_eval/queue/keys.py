"""Every Redis key of a run.

RQ's own names stand under `rq:`, ours under `qe:`. docs/reference/keys.md has types and lifetimes.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunKeys:
    run_id: str

    @property
    def queue(self) -> str:
        """RQ's name of the run's queue."""
        return f"queue-eval-{self.run_id}"

    @property
    def run(self) -> str:
        """Hash: state, epoch, manifest, total, scored, dead, executions, hold, the counters and more."""
        return f"qe:run:{self.run_id}"

    @property
    def leases(self) -> str:
        """Sorted set: case id:execution → Unix milliseconds at which the lease ends."""
        return f"qe:leases:{self.run_id}"

    @property
    def quarantined(self) -> str:
        """List: ready cases that have crashed so often that each worker takes one of them at a time."""
        return f"qe:quarantine:{self.run_id}"

    @property
    def claimed(self) -> str:
        """Hash: worker → the number of its last claim and what it got, should the reply be lost."""
        return f"qe:claimed:{self.run_id}"

    @property
    def workers(self) -> str:
        """Sorted set: worker name → Unix milliseconds when it was last seen."""
        return f"qe:workers:{self.run_id}"

    def role(self, role: str) -> str:
        return f"qe:role:{self.run_id}:{role}"

    @property
    def ready(self) -> str:
        return f"rq:queue:{self.queue}"

    @property
    def delayed(self) -> str:
        """Sorted set: job id → Unix seconds when it is due (RQ's ScheduledJobRegistry)."""
        return f"rq:scheduled:{self.queue}"

    @property
    def started(self) -> str:
        """RQ's StartedJobRegistry. Its scores are +inf: RQ must never clean up what our leases govern."""
        return f"rq:wip:{self.queue}"

    @property
    def finished(self) -> str:
        return f"rq:finished:{self.queue}"

    @property
    def failed(self) -> str:
        return f"rq:failed:{self.queue}"

    @property
    def rq_workers(self) -> str:
        return f"rq:workers:{self.queue}"

    def job_id(self, case_id: str) -> str:
        """Return a name that no other program's job has: Redis' users may write ours alone."""
        return f"{self.queue}_{case_id}"

    @property
    def job_prefix(self) -> str:
        return f"rq:job:{self.job_id('')}"

    def rq_worker(self, worker: str) -> str:
        return f"rq:worker:{worker}"

    @property
    def of_the_run(self) -> tuple[str, ...]:
        """Keys whose lifetime is the run's; job hashes carry a lifetime of their own."""
        return (
            self.run,
            self.leases,
            self.workers,
            self.ready,
            self.delayed,
            self.started,
            self.finished,
            self.failed,
            self.rq_workers,
            self.quarantined,
            self.claimed,
        )


RQ_WORKERS = "rq:workers"
