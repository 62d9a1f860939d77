"""What an operator does with a run: submit, scale, reconcile, cancel, delete. Every one is safe to repeat."""

import base64
import gzip
from dataclasses import dataclass

from queue_eval.core.errors import EXIT_ABORTED, NoInputError, RunConflictError
from queue_eval.core.run import RunState
from queue_eval.kubernetes import jobs
from queue_eval.kubernetes.cluster import Cluster, Object
from queue_eval.kubernetes.names import FOLLOWERS, RUN_LABEL, finalizer_name, run_name, selector
from queue_eval.kubernetes.plan import RunPlan
from queue_eval.kubernetes.queries import jobs_of
from queue_eval.kubernetes.reconcile import Another, AnotherFinalizer, Decision, Rest, decide
from queue_eval.kubernetes.status import SETTLED_S, JobSeen


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    job: str
    parallelism: int
    new: bool  # the earlier Job can no longer grow, so this one was started
    because: str = ""
    followed: bool = True  # a pod waits for the run's end, and will finalize it


def submit(cluster: Cluster, plan: RunPlan, *, workers: int | None) -> dict[str, bool]:
    """Everything of a run, create-once: name of each object → whether it is new.

    A repeated submit finds its own, and makes anew what has failed while there is no verdict: why it failed has been
    mended meanwhile.
    """
    # the producer first: under a quota the others may have to wait, and it must not wait for them
    bodies = (jobs.producer(plan), jobs.finalizer(plan), jobs.workers(plan, parallelism=workers))
    # a run of which half can be created would be no run
    inputs = jobs.config_map(plan)
    cluster.check("configmaps", inputs)
    for body in bodies:
        cluster.check("jobs", body)
    owner, is_new = cluster.create("configmaps", inputs)
    _must_be_the_same(owner, inputs, plan.run_id)
    created = {run_name(plan.run_id): is_new}
    failed = {} if is_new else _failed(cluster, plan.run_id)
    for body in bodies:
        name = body["metadata"]["name"]
        if name in failed:
            cluster.delete("jobs", name, uid=failed[name])
        found, created[name] = cluster.create("jobs", jobs.owned(body, owner))
        _must_be_owned(found, owner, plan.run_id)
    return created


def _must_be_owned(job: Object, owner: Object, run_id: str) -> None:
    """What an earlier ConfigMap owned the garbage collector is about to take; a Job without an owner comes from applied
    manifests.
    """
    meta = job["metadata"]
    owners = [reference["uid"] for reference in meta.get("ownerReferences") or ()]
    is_other = bool(owners) and owner["metadata"]["uid"] not in owners
    if is_other or "deletionTimestamp" in meta or (meta.get("labels") or {}).get(RUN_LABEL) != run_id:
        raise RunConflictError(
            f"Job {meta['name']} stands there and is none of this submit's: it is being deleted, or another program's;"
            f" queue-eval k8s delete {run_id}, or delete that Job, then submit again"
        )


def _failed(cluster: Cluster, run_id: str) -> dict[str, str]:
    """Name → uid of the Jobs that a run without a verdict needs again.

    With further Jobs of workers they are `scale`'s and `reconcile`'s matter.
    """
    seen = [JobSeen.of(job) for job in jobs_of(cluster, run_id)]
    if any(job.role in FOLLOWERS and job.has_verdict for job in seen):
        return {}
    is_scaled = any(job.number > 1 for job in seen)
    return {job.name: job.uid for job in seen if job.ended == "Failed" and not (job.role == "worker" and is_scaled)}


def _must_be_the_same(owner: Object, inputs: Object, run_id: str) -> None:
    if _contents(owner) != _contents(inputs):
        raise RunConflictError(
            f"run {run_id!r} was submitted with another eval.yaml or other cases; choose another --run-id, or delete it"
            " first",
        )


def _contents(inputs: Object) -> dict[str, bytes]:
    """Unpacked: other versions of Python pack the same in other bytes."""
    files = {name: base64.b64decode(data) for name, data in (inputs.get("binaryData") or {}).items()}
    return {name: gzip.decompress(data) if name.endswith(".gz") else data for name, data in files.items()}


def worker_jobs(cluster: Cluster, run_id: str) -> list[JobSeen]:
    """Oldest first. NoInputError when the run has none."""
    found, _ = cluster.list("jobs", labels=selector(run_id, "worker"))
    if not found:
        raise NoInputError(
            f"run {run_id!r}: namespace {cluster.namespace} has no workers of it; queue-eval k8s status {run_id}"
            f" {cluster.here} shows what there is, and queue-eval k8s delete {run_id} {cluster.here} ends it (its"
            " results stay)"
        )
    return sorted(map(JobSeen.of, found), key=lambda job: job.number)


def scale(cluster: Cluster, run_id: str, size: int) -> Scaled:
    """So many workers in all, from now on."""
    seen = worker_jobs(cluster, run_id)
    if any(job.indexed for job in seen):
        raise RunConflictError(
            f"run {run_id!r} is of static shards, one for each of its pods: their number is given when they are made"
        )
    last = seen[-1]
    if any(job.code == EXIT_ABORTED for job in seen):
        raise RunConflictError(f"run {run_id!r} was cancelled, and that is for good; submit it under another --run-id")
    staying = sum(job.active for job in seen[:-1])
    if last.may_grow:
        wanted = max(0, size - staying)
        # never fewer: pods that failed before would end the Job
        retries = max(last.backoff_limit, jobs.retries(wanted))
        cluster.patch("jobs", last.name, {"spec": {"parallelism": wanted, "backoffLimit": retries}})
        _finalize_again(cluster, run_id, goes_on=True)
        return Scaled(job=last.name, parallelism=wanted, new=False, followed=_followed(cluster, run_id))
    wanted = max(0, size - staying - last.active)
    if not wanted:
        # no worker is to be added, and none can be taken away: those that work leave when the run is drained
        return Scaled(job=last.name, parallelism=last.active, new=False, followed=_followed(cluster, run_id))
    name = start_another(cluster, last, last.number + 1, wanted)
    because = f"it is {last.ended} ({last.reason})" if last.ended else "a worker of it has found the run drained"
    return Scaled(job=name, parallelism=wanted, new=True, because=because, followed=_followed(cluster, run_id))


def _followed(cluster: Cluster, run_id: str) -> bool:
    found, _ = cluster.list("jobs", labels=selector(run_id))
    return any(job.role in FOLLOWERS and not job.ended for job in map(JobSeen.of, found))


def start_another(cluster: Cluster, last: JobSeen, number: int, parallelism: int) -> str:
    """A further Job on the same run, as the last one was, with its owner."""
    template = cluster.get("jobs", last.name)
    if template is None:
        raise NoInputError(f"Job {last.name} is gone")
    body = jobs.further(template, number, parallelism)
    cluster.create("jobs", body)
    _finalize_again(cluster, str(template["metadata"]["labels"][RUN_LABEL]), goes_on=True)
    return str(body["metadata"]["name"])


def _finalize_again(cluster: Cluster, run_id: str, *, goes_on: bool) -> bool:
    """A finalizer that ended before the run did has reported what there was then: another waits for the rest."""
    name = finalizer_name(run_id)
    job = cluster.get("jobs", name)
    if job is None:
        return False
    seen = JobSeen.of(job)
    stands = seen.has_final_verdict or (seen.has_verdict and not goes_on)
    if seen.ended != "Failed" or stands:
        return False
    wanted = jobs.again(job)
    # the one that is deleted is its pattern: it goes when the server would take another, under a name that is no longer
    cluster.check("jobs", {**wanted, "metadata": {**wanted["metadata"], "name": f"{run_name(run_id)}-trial"}})
    cluster.delete("jobs", name, uid=seen.uid)
    cluster.create("jobs", wanted)
    return True


def reconcile(cluster: Cluster, run_id: str, state: RunState | None, *, known_at_s: float) -> Decision:
    """Looks once, and starts a further Job of workers, or the finalizer anew, where the run needs it."""
    seen = worker_jobs(cluster, run_id)
    decision = decide(seen, state)
    if isinstance(decision, Another) and known_at_s < max(job.ended_at_s for job in seen) + SETTLED_S:
        decision = Rest("how the run stands is known of before its workers' end only; look again in a while")
    if isinstance(decision, Another):
        start_another(cluster, seen[-1], decision.number, max(1, seen[-1].parallelism))
    elif isinstance(decision, Rest) and _finalize_again(cluster, run_id, goes_on=state is not None and not state.over):
        return AnotherFinalizer(f"the last one failed, and {decision.why}")
    return decision


def cancel(cluster: Cluster, run_id: str) -> str:
    """Starts the pod that aborts the run, again where one has failed; its name.

    Workers release what they hold and leave with 65; nothing is deleted.
    """
    seen = [JobSeen.of(job) for job in jobs_of(cluster, run_id)]
    if all(job.ended for job in seen) and any(job.role in FOLLOWERS and job.has_final_verdict for job in seen):
        raise RunConflictError(f"run {run_id!r} has its verdict, and no pod works on it; there is nothing to cancel")
    first = worker_jobs(cluster, run_id)[0]
    if first.indexed:
        raise RunConflictError(
            f"run {run_id!r} is of static shards, which no abort reaches; queue-eval k8s delete {run_id} {cluster.here}"
            " ends them (what is scored stays)"
        )
    template = cluster.get("jobs", first.name)
    if template is None:
        raise NoInputError(f"run {run_id!r} is gone")
    wanted = jobs.abort_like(template)
    body, is_new = cluster.create("jobs", wanted)
    if not is_new and JobSeen.of(body).ended == "Failed":
        cluster.delete("jobs", body["metadata"]["name"], uid=JobSeen.of(body).uid)
        cluster.create("jobs", wanted)
    return str(wanted["metadata"]["name"])


def delete(cluster: Cluster, run_id: str) -> list[str]:
    """The run's objects in the cluster; what was deleted. Its results stay in the store."""
    name = run_name(run_id)
    # each by itself, and the owner last: who submits the run again at once must not find Jobs that the garbage
    # collector is about to take
    names = [job["metadata"]["name"] for job in jobs_of(cluster, run_id)]
    gone = [f"Job {job}" for job in names if cluster.delete("jobs", job)]
    gone += [f"ConfigMap {name}"] if cluster.delete("configmaps", name) else []
    if not gone:
        raise NoInputError(f"run {run_id!r}: namespace {cluster.namespace} has nothing of it")
    return gone
