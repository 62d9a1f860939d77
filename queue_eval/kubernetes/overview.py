"""One look at a run through the API server alone: its Jobs and pods, and the last word of the pod that follows it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from queue_eval.core.errors import AccessError, NoInputError
from queue_eval.core.run import RunState
from queue_eval.core.status_line import StatusLine
from queue_eval.kubernetes.cluster import Cluster, Object
from queue_eval.kubernetes.diagnostics import Trouble, foreign, troubles, unread, unseen, waits
from queue_eval.kubernetes.errors import BusyError
from queue_eval.kubernetes.names import FOLLOWERS, run_name
from queue_eval.kubernetes.queries import jobs_and_pods, warnings_about
from queue_eval.kubernetes.status import JobSeen, PodEnd, is_running, json_body, pod_end, role_of

TAIL_LINES = 200
LAST_ENDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    run_id: str
    jobs: tuple[JobSeen, ...]
    running: int  # pods of workers
    pending: int
    status: StatusLine | None = None  # the last that the run's follower logged
    report: dict[str, Any] = field(default_factory=dict)  # the verdict, once there is one
    troubles: tuple[Trouble, ...] = ()
    ends: tuple[tuple[str, PodEnd], ...] = ()  # pods that failed, the last ones

    @property
    def state(self) -> RunState | None:
        if not self.status:
            # the pod that followed it took its words with it, and its Job has the verdict
            ended = any(job.role in FOLLOWERS and job.has_final_verdict for job in self.jobs)
            return RunState.FINALIZED if ended else None
        state = self.status.stats.state
        # a report of a part is none of the rest
        return RunState.FINALIZED if self.report and state is RunState.DRAINED else state

    @property
    def verdict(self) -> int | None:
        """Return the exit code of the pod that finalized the run."""
        found = [job for job in self.jobs if job.role in FOLLOWERS and job.has_verdict]
        return (found[-1].code or 0) if found else None

    @property
    def is_enqueued(self) -> bool:
        """Return whether its Jobs show that it was enqueued: a driver starts workers when it has produced."""
        by_driver = any(job.role == "driver" for job in self.jobs) and any(job.role == "worker" for job in self.jobs)
        return by_driver or any(job.role == "producer" and job.ended == "Complete" for job in self.jobs)


def look(cluster: Cluster, run_id: str) -> Overview:
    """NoInputError when the namespace has nothing of the run. A handful of requests, however many pods there are."""
    jobs, pods = jobs_and_pods(cluster, run_id)
    if not jobs:
        if cluster.get("configmaps", run_name(run_id)):
            raise NoInputError(
                f"run {run_id!r}: namespace {cluster.namespace} has nothing of it but its ConfigMap: its Jobs' time is"
                " over, and its report in the store; or a submit was broken off, and the same one creates the rest"
            )
        raise NoInputError(
            f"run {run_id!r}: namespace {cluster.namespace} has nothing of it; check the run id and --namespace"
        )
    workers = [pod for pod in pods if role_of(pod) == "worker"]
    word = last_word(cluster, pods)
    events, hidden = warnings(cluster, jobs, pods)
    return Overview(
        run_id=run_id,
        jobs=tuple(map(JobSeen.of, jobs)),
        running=sum(map(is_running, workers)),
        pending=sum((pod.get("status") or {}).get("phase") == "Pending" for pod in workers),
        status=word.status,
        report=word.report,
        troubles=(*troubles(jobs, pods, events, word.status, word.trouble), *filter(None, [hidden])),
        ends=tuple(_failed(pods)[-LAST_ENDS:]),
    )


def warnings(cluster: Cluster, jobs: Iterable[Object], pods: Iterable[Object]) -> tuple[list[Object], Trouble | None]:
    """Return the cluster's warnings about them, or why they are unknown: the rest is shown all the same."""
    try:
        return warnings_about(cluster, jobs, pods), None
    except (AccessError, BusyError) as error:
        return [], unseen(error)


@dataclass(slots=True, kw_only=True)
class LastWord:
    """What the log of a finalizer or driver holds."""

    status: StatusLine | None = None  # the newest
    report: dict[str, Any] = field(default_factory=dict)
    trouble: Trouble | None = None  # it waits for Redis or the store, or its log cannot be read


def last_word(cluster: Cluster, pods: list[Object]) -> LastWord:
    followers = sorted((p for p in pods if role_of(p) in FOLLOWERS), key=lambda p: p["metadata"]["creationTimestamp"])
    word = LastWord()
    for pod in followers[-2:]:
        try:
            lines = cluster.log(pod["metadata"]["name"], tail=TAIL_LINES).splitlines()
        except (AccessError, BusyError) as error:
            # we may not; or its node is away, or the API server itself: what else there is to see is seen all the same
            word.trouble = unread(pod["metadata"]["name"], error)
            continue
        for text in lines:
            body = json_body(text)
            match body.get("event"):
                case "status" if (line := StatusLine.from_json(body)) is None:
                    word.trouble = foreign(pod["metadata"]["name"])
                case "status":
                    # after a report: another pod has followed the run since
                    word.status, word.report, word.trouble = line, {}, None
                case "report":
                    word.report, word.trouble = body, None
                case "unavailable":
                    word.trouble = waits(str(body.get("reason", "")))
                case "available":
                    word.trouble = None
    return word


def _failed(pods: list[Object]) -> list[tuple[str, PodEnd]]:
    ends = [(pod["metadata"]["name"], end) for pod in pods if (end := pod_end(pod)) and end.code != 0]
    when = {pod["metadata"]["name"]: pod["metadata"]["creationTimestamp"] for pod in pods}
    return sorted(ends, key=lambda named: when[named[0]])
