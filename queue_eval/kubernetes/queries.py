"""A run's Jobs and pods, as the API server lists them."""

from collections.abc import Iterable

from queue_eval.kubernetes.cluster import Cluster, Object
from queue_eval.kubernetes.names import JOB_NAME_LABEL, selector
from queue_eval.kubernetes.status import claims_of, role_of


def jobs_of(cluster: Cluster, run_id: str) -> list[Object]:
    """A driver that has not begun has labelled nothing yet: its run is called as its Job is."""
    jobs, _ = cluster.list("jobs", labels=selector(run_id))
    if not jobs and (own := cluster.get("jobs", run_id)) and role_of(own) == "driver":
        return [own]
    return jobs


def jobs_and_pods(cluster: Cluster, run_id: str) -> tuple[list[Object], list[Object]]:
    jobs = jobs_of(cluster, run_id)
    pods, _ = cluster.list("pods", labels=selector(run_id))
    once = {pod["metadata"]["name"]: pod for pod in (*drivers_pods(cluster, jobs), *pods)}
    return jobs, list(once.values())


def drivers_pods(cluster: Cluster, jobs: Iterable[Object]) -> list[Object]:
    """By their Job's name: each labels itself with the run, and not before it runs."""
    names = [job["metadata"]["name"] for job in jobs if role_of(job) == "driver"]
    return [pod for name in names for pod in cluster.list("pods", labels=f"{JOB_NAME_LABEL}={name}")[0]]


def warnings_about(cluster: Cluster, jobs: Iterable[Object], pods: Iterable[Object]) -> list[Object]:
    """Of these, and of the volume claims that the pods name."""
    jobs, pods = list(jobs), list(pods)
    names = {body["metadata"]["name"] for body in (*jobs, *pods)}.union(*map(claims_of, pods))
    events, _ = cluster.list("events", fields="type=Warning")
    return [event for event in events if event["involvedObject"].get("name") in names]
