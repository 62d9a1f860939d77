"""What keeps a run from going on, by the state of its objects, each with the remedy. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from queue_eval.core.errors import EXIT_DRAINED, EXIT_INTERRUPTED
from queue_eval.core.run import RunState
from queue_eval.core.status_line import StatusLine
from queue_eval.kubernetes.names import CONTAINER, FOLLOWERS, JOB_NAME_LABEL
from queue_eval.kubernetes.status import (
    FAILING_VERDICTS,
    SETTLED_S,
    JobSeen,
    claims_of,
    has_volumes,
    is_lost,
    is_scheduled,
    moment_s,
    pod_end,
    role_of,
    said_at_s,
)

Object = dict[str, Any]

_IMAGE = {"ErrImagePull", "ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName", "ImageInspectError"}
_NO_NODE = {"Unschedulable", "SchedulerError"}
_NO_VOLUME = {"FailedMount": "mounted", "FailedAttachVolume": "attached to its node", "ProvisioningFailed": "made"}
_QUIET_EXITS = {EXIT_DRAINED, EXIT_INTERRUPTED}
ANEW = "then queue-eval k8s delete RUN and submit it again under the same id (its results stay)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    where: str  # the pod or Job
    what: str
    remedy: str
    blocks: bool = True  # nothing goes on by itself until it is mended

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


def troubles(
    jobs: Iterable[Object],
    pods: Iterable[Object],
    events: Iterable[Object] = (),
    status: StatusLine | None = None,
    follower: Trouble | None = None,
) -> list[Trouble]:
    """Return one of each kind: the same trouble of many pods is reported once.

    `status`: the last that the run's follower logged. `follower`: what keeps it from going on, or its log from being
    read.
    """
    jobs, pods = list(jobs), list(pods)
    seen = [JobSeen.of(job) for job in jobs]
    past = _past(seen, status)
    followed = any(job.role in FOLLOWERS and not job.ended for job in seen)
    maybe = [
        *(
            t
            for pod in pods
            if role_of(pod) not in past
            for t in (_waiting(pod), _unschedulable(pod), _lost(pod), _ended(pod))
        ),
        *_of_jobs([job for job in seen if job.role not in past], followed=followed),
        *_of_events(events, seen, pods, past),
        _unfollowed(seen),
        _unstaffed(seen) if followed and not _state(status).over else None,
        follower,
        stalled(seen, status),
    ]
    found = [t for t in maybe if t]
    once = {(t.what, t.remedy): t for t in reversed(found)}
    return [t for t in found if once[(t.what, t.remedy)] is t]


def _of_jobs(jobs: list[JobSeen], *, followed: bool) -> list[Trouble | None]:
    newest = max((job.number for job in jobs), default=0)
    failed = [_failed_job(job, followed=followed) for job in jobs if job.number in (0, newest)]
    standing = [job for job in jobs if not job.ended]
    return [*failed, *(_suspended(job) for job in standing if job.suspended), _unwanted(standing)]


def _of_events(
    events: Iterable[Object], jobs: list[JobSeen], pods: list[Object], past: set[str]
) -> list[Trouble | None]:
    waiting = [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Pending" and not has_volumes(pod)]
    # a pod has a node when its claims have volumes
    unbound = [claims_of(pod) for pod in waiting if not is_scheduled(pod)]
    waiting_for = {pod["metadata"]["name"] for pod in waiting}.union(*unbound)
    has_all = (job.name for job in jobs if job.ended or job.suspended or job.active >= job.parallelism)
    complete = {*has_all, *(job.name for job in jobs if job.role in past)}
    newest: dict[str, float] = {}
    for pod in sorted(pods, key=_created_s):
        newest[(pod["metadata"].get("labels") or {}).get(JOB_NAME_LABEL, "")] = _created_s(pod)
    # a Job that has made a pod since is refused no longer
    recent = [event for event in events if said_at_s(event) >= newest.get(event["involvedObject"].get("name", ""), 0.0)]
    return [_event(event, waiting_for, complete) for event in recent]


def _created_s(pod: Object) -> float:
    return moment_s(pod["metadata"].get("creationTimestamp"))


def _past(jobs: Iterable[JobSeen], status: StatusLine | None) -> set[str]:
    """Return the roles whose work is done: how one of their pods ended on the way there keeps the run from nothing."""
    jobs, state = list(jobs), _state(status)
    if state.over or any(job.role in FOLLOWERS and job.has_final_verdict for job in jobs):
        return {"worker", "producer"}
    is_sealed = state is not RunState.OPEN or any(job.role == "producer" and job.ended == "Complete" for job in jobs)
    return {"producer"} if is_sealed else set()


def _state(status: StatusLine | None) -> RunState:
    return status.stats.state if status else RunState.OPEN


def stalled(jobs: Iterable[JobSeen], status: StatusLine | None) -> Trouble | None:
    """Workers that are Complete although the run is not over. Words of before their end may be out of date."""
    workers = [job for job in jobs if job.role == "worker"]
    if not workers or not status or not all(job.ended for job in workers) or _state(status).over:
        return None
    last = max(workers, key=lambda job: job.ended_at_s)
    if last.ended != "Complete" or status.stats.now_s < last.ended_at_s + SETTLED_S:
        return None
    remedy = "queue-eval k8s reconcile starts further workers; nothing is lost"
    return Trouble(
        where=f"Job {last.name}", what=f"it is Complete although the run is {status.stats.state}", remedy=remedy
    )


def _unfollowed(jobs: list[JobSeen]) -> Trouble | None:
    run = [job for job in jobs if job.role in ("producer", "worker")]
    if not run or any(job.role in FOLLOWERS for job in jobs):
        return None
    if any(job.indexed for job in jobs):
        return _unreported(run)
    remedy = "the same queue-eval k8s submit creates it again; results and reports are in the store"
    return Trouble(
        where=f"Job {run[-1].name}", what="the finalizer Job was deleted; no report will be written", remedy=remedy
    )


def _unreported(shards: list[JobSeen]) -> Trouble | None:
    if not all(job.ended for job in shards):
        return None
    last = [job for job in shards if job.indexed][-1]
    remedy = "queue-eval finalize RUN --store STORE --no-wait does, where the store can be reached"
    return Trouble(
        where=f"Job {last.name}", what="its static shards have ended, and no pod reports them", remedy=remedy
    )


def _unstaffed(jobs: list[JobSeen]) -> Trouble | None:
    producers = [job for job in jobs if job.role == "producer" and job.ended == "Complete"]
    if not producers or any(job.role == "worker" for job in jobs):
        return None
    remedy = "the same queue-eval k8s submit creates it again; nothing is lost"
    return Trouble(
        where=f"Job {producers[0].name}", what="the workers' Job was deleted; no case will be scored", remedy=remedy
    )


def _waiting(pod: Object) -> Trouble | None:
    status = pod.get("status") or {}
    ours = [c for c in status.get("containerStatuses") or () if c["name"] == CONTAINER]
    # those of `kubernetes.pod` or of a mesh come first
    for container in (*(status.get("initContainerStatuses") or ()), *ours):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _IMAGE:
            remedy = f"give the nodes access to it; or correct kubernetes.image, {ANEW}"
            return Trouble(
                where=_name(pod), what=f"the image {container['image']} cannot be pulled ({reason})", remedy=remedy
            )
        if reason == "CreateContainerConfigError":
            remedy = "create it in this namespace; the pod starts by itself then"
            return Trouble(where=_name(pod), what=f"its configuration is incomplete: {message}", remedy=remedy)
        if reason in ("CreateContainerError", "RunContainerError"):
            return Trouble(
                where=_name(pod), what=f"its container cannot start: {message}", remedy="see kubectl describe pod"
            )
    return None


def _unschedulable(pod: Object) -> Trouble | None:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition.get("reason") in _NO_NODE:
            message = condition.get("message", "")
            remedy = (
                f"add nodes, or create the volume claim; or ask for less (kubernetes.requests, kubernetes.pod), {ANEW}"
            )
            return Trouble(where=_name(pod), what=f"no node takes it: {message}", remedy=remedy)
    return None


def _lost(pod: Object) -> Trouble | None:
    if not is_lost(pod):
        return None
    node = (pod.get("spec") or {}).get("nodeName", "")
    remedy = (
        f"what it held others do when its leases end, and its Job starts another when node {node} is gone (kubectl"
        " delete node, where no cloud does that) or answers"
    )
    return Trouble(where=_name(pod), what=f"its node {node} does not answer", remedy=remedy)


def _ended(pod: Object) -> Trouble | None:
    end = pod_end(pod)
    if end is None or end.disrupted or end.code in _QUIET_EXITS:
        return None
    if end.code in FAILING_VERDICTS and role_of(pod) in FOLLOWERS:
        return None
    if end.reason == "OOMKilled":
        remedy = f"raise kubernetes.limits.memory, {ANEW}"
        if role_of(pod) == "worker":
            remedy = (
                "lower workers.concurrency with queue-eval tune RUN --concurrency N --store STORE, where Redis is"
                f" reached, such as in a pod; or {remedy}"
            )
        return Trouble(
            where=_name(pod), what="it needed more memory than its limit (OOMKilled)", remedy=remedy, blocks=False
        )
    message = end.last_words or end.reason
    # a worker is replaced, and others work on; without a producer there is nothing to do
    blocks = role_of(pod) == "producer"
    return Trouble(where=_name(pod), what=f"exit code {end.code}: {message}", remedy="its log has more", blocks=blocks)


def _failed_job(job: JobSeen, *, followed: bool) -> Trouble | None:
    if job.ended != "Failed" or (job.role in FOLLOWERS and job.has_verdict):
        return None
    remedy = {
        "DeadlineExceeded": (
            "nothing is lost: queue-eval k8s scale RUN N goes on with further workers, for as long again"
        ),
        "BackoffLimitExceeded": "see its pods' ends above; queue-eval k8s reconcile starts further workers",
    }.get(job.reason, "see its pods' ends above")
    if job.role == "producer":
        remedy = "mend the error in its pods' logs; the same queue-eval k8s submit creates it anew"
    if job.role == "finalizer":
        remedy = (
            "there is no verdict: mend the error in its pods' logs, and queue-eval k8s reconcile RUN starts another"
            " finalizer"
        )
    if job.role == "abort":
        remedy = "the same queue-eval k8s cancel starts another"
    # the run's follower reports what there is
    blocks = not (followed and job.role == "worker" and job.reason == "DeadlineExceeded")
    return Trouble(where=f"Job {job.name}", what=f"failed ({job.reason}): {job.message}", remedy=remedy, blocks=blocks)


def _unwanted(jobs: list[JobSeen]) -> Trouble | None:
    workers = [job for job in jobs if job.role == "worker" and not job.suspended]
    if not workers or any(job.parallelism or job.active for job in workers):
        return None
    remedy = "queue-eval k8s scale RUN N starts N"
    return Trouble(
        where=f"Job {workers[-1].name}", what="it is to have no workers (parallelism 0)", remedy=remedy, blocks=False
    )


def _suspended(job: JobSeen) -> Trouble:
    resume = f"""kubectl patch job {job.name} -p '{{"spec":{{"suspend":false}}}}'"""
    remedy = f"its queue lets it in when there is room (kubernetes.queue); or, where a person suspended it: {resume}"
    return Trouble(where=f"Job {job.name}", what="it is suspended and has no pods", remedy=remedy, blocks=False)


def unread(pod: str, error: Exception) -> Trouble:
    remedy = (
        "the run's state is unknown meanwhile; where its node is gone, the Job starts another pod when the cluster"
        " deletes the node"
    )
    return Trouble(where=f"pod {pod}", what=f"its log cannot be read: {error}", remedy=remedy, blocks=False)


def unseen(error: Exception) -> Trouble:
    return Trouble(
        where="events", what=str(error), remedy="the cluster's events about its pods are unknown without", blocks=False
    )


def foreign(pod: str) -> Trouble:
    remedy = "the run itself is well: ask with the version of queue-eval that its image has"
    return Trouble(where=f"pod {pod}", what="its status lines are of another version", remedy=remedy, blocks=False)


def waits(message: str) -> Trouble:
    remedy = "it goes on by itself when that serves; correct redis.url or store if it never will"
    return Trouble(where="who follows the run", what=f"it waits: {message}", remedy=remedy, blocks=False)


def _event(event: Object, waiting: set[str], complete: set[str]) -> Trouble | None:
    """`waiting`: pods that cannot start yet, and their claims.

    `complete`: Jobs that want no more pods now; the server keeps telling of earlier refusals for an hour.
    """
    about, reason, message = event["involvedObject"], event.get("reason", ""), event.get("message", "")
    if about.get("kind") == "Job" and reason == "FailedCreate" and about.get("name") not in complete:
        remedy = f"mend what it names in the namespace, or correct kubernetes: in the eval YAML, {ANEW}"
        if "must specify" in message:
            remedy = f"name what it asks for in kubernetes.requests or kubernetes.limits, {ANEW}"
        elif "quota" in message:
            remedy = (
                "raise the namespace's quota, or queue-eval k8s scale RUN to fewer; or ask for less"
                f" (kubernetes.requests, kubernetes.limits), {ANEW}"
            )
        return Trouble(where=f"Job {about['name']}", what=f"its pods cannot be created: {message}", remedy=remedy)
    if about.get("name") not in waiting:
        return None
    where = f"{'pod' if about.get('kind') == 'Pod' else 'volume claim'} {about['name']}"
    if reason in _NO_VOLUME:
        remedy = "create or mend what it names; the pod starts by itself then"
        return Trouble(where=where, what=f"a volume cannot be {_NO_VOLUME[reason]}: {message}", remedy=remedy)
    if reason == "FailedCreatePodSandBox":
        return Trouble(
            where=where,
            what=f"its node cannot start it: {message}",
            remedy="mend the node, or cordon it and delete the pod",
        )
    return None


def _name(pod: Object) -> str:
    return f"pod {pod['metadata']['name']}"
