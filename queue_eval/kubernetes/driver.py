"""The pod that carries a run from its cases to a verdict: it keeps the workers' Jobs in step with the run itself."""

import logging
from collections.abc import Callable, Mapping

from queue_eval.core.errors import ConfigError
from queue_eval.core.run import RunState
from queue_eval.kubernetes import jobs
from queue_eval.kubernetes.actions import start_another
from queue_eval.kubernetes.cluster import Cluster, Object
from queue_eval.kubernetes.names import RUN_LABEL, selector, workers_name
from queue_eval.kubernetes.plan import RunPlan
from queue_eval.kubernetes.reconcile import Another, GiveUp, decide
from queue_eval.kubernetes.status import JobSeen, moment_s
from queue_eval.kubernetes.watching import Watching

log = logging.getLogger("queue_eval.kubernetes")

REPORTS_WITHIN_S = 600  # of this pod's own deadline; a tenth of a short one
LOOK_EVERY_S = 5.0  # at what is known already: how the run stands changes without the API server's knowing


def time_left_s(job: Object, now_s: float) -> float | None:
    """Until the driver of this Job reports what there is, so that the night ends with a word.

    None: it has no deadline.
    """
    deadline_s, began = job["spec"].get("activeDeadlineSeconds"), (job.get("status") or {}).get("startTime")
    if not deadline_s or not began:
        return None
    reserved_s = min(REPORTS_WITHIN_S, float(deadline_s) / 10)
    return max(0.0, moment_s(began) + float(deadline_s) - reserved_s - now_s)


class Driver:
    def __init__(self, cluster: Cluster, plan: RunPlan, *, sleep: Callable[[float], object]) -> None:
        self._cluster = cluster
        self._plan = plan
        self._sleep = sleep

    def adopt_own_job(self, environment: Mapping[str, str]) -> Object:
        """This pod's own Job, labelled with the run, so that `k8s status` finds both; it owns what is created here."""
        pod, name = environment.get("POD_NAME"), environment.get("JOB_NAME")
        job = self._cluster.get("jobs", name) if name else None
        if not pod or not name or job is None:
            raise ConfigError(
                "k8s drive: POD_NAME and JOB_NAME must name this pod and its Job; see k8s/overlays/nightly"
            )
        labels = {"metadata": {"labels": {RUN_LABEL: self._plan.run_id}}}
        self._cluster.patch("pods", pod, labels)
        return self._cluster.patch("jobs", name, labels)

    def start_workers(self, owner: Object, *, size: int | None) -> bool:
        """False when an earlier life of this driver has done it: then they may have been scaled since."""
        body = jobs.owned(jobs.workers(self._plan, parallelism=size), owner)
        _, is_new = self._cluster.create("jobs", body)
        return is_new

    def supervise(self, state: Callable[[], RunState | None], stopped: Callable[[], bool]) -> str:
        """Keep the workers' Jobs in step with the run.

        Return "" when the run is over or `stopped`, and why when no Job can help it.
        """
        run_id = self._plan.run_id
        watching = Watching(self._cluster, selector(run_id, "worker"), kinds=("jobs",), sleep=self._sleep)
        for seen in watching.changes(LOOK_EVERY_S):
            if ((known := state()) is not None and known.over) or stopped():
                return ""
            found = sorted(map(JobSeen.of, seen.jobs.values()), key=lambda job: job.number)
            match decide(found, known):
                case Another(number, why):
                    log.error("starting further workers", extra={"event": "reconciled", "reason": why})
                    start_another(self._cluster, found[-1], number, max(1, found[-1].parallelism))
                case GiveUp(why):
                    return why
                case _ if known is not None and not found and self._cluster.get("jobs", workers_name(run_id)) is None:
                    return "its workers' Job was deleted"
                case _:
                    continue
        raise AssertionError("a watch never ends by itself")
