"""What the pods of a run write, as they write it: of those too that begin later."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator

from queue_eval.core.errors import NoInputError, QueueEvalError
from queue_eval.kubernetes.cluster import Cluster, Object
from queue_eval.kubernetes.names import selector
from queue_eval.kubernetes.seen import JobSeen, is_running, pod_end
from queue_eval.kubernetes.watching import Watching

MOST_AT_ONCE = 50  # each takes a connection
LOOK_EVERY_S = 0.5

Said = queue.SimpleQueue[tuple[str, str]]


def lines(
    cluster: Cluster, run_id: str, role: str | None, *, tail: int | None, sleep: Callable[[float], object]
) -> Iterator[tuple[str, str]]:
    """(pod, line), until every Job has ended and every pod is read. NoInputError when they are too many."""
    said: Said = queue.SimpleQueue()
    readers: dict[str, threading.Thread] = {}
    labels, has_jobs = selector(run_id, role), False
    for seen in Watching(cluster, labels, sleep=sleep).changes(LOOK_EVERY_S):
        has_jobs = has_jobs or bool(seen.jobs)
        ended = has_jobs and all(JobSeen.of(job).ended for job in seen.jobs.values())
        # the streams are two: a Job's end may be heard of before its last pod
        pods = cluster.list("pods", labels=labels)[0] if ended else seen.pods.values()
        for name in sorted(_begun(pods) - set(readers)):
            readers[name] = threading.Thread(target=_read, args=(cluster, name, tail, said), daemon=True)
            readers[name].start()
        reading = sum(reader.is_alive() for reader in readers.values())
        if reading > MOST_AT_ONCE:
            raise NoInputError(f"{reading} pods are more than {MOST_AT_ONCE} to follow at once; name a --role")
        while not said.empty():
            yield said.get()
        if ended and not reading:
            return


def _begun(pods: Iterable[Object]) -> set[str]:
    return {pod["metadata"]["name"] for pod in pods if is_running(pod) or pod_end(pod)}


def _read(cluster: Cluster, name: str, tail: int | None, said: Said) -> None:
    try:
        for line in cluster.follow_log(name, tail=tail):
            said.put((name, line))
    except QueueEvalError as error:
        # one pod that is gone must not end the others' lines
        said.put((name, f"no log ({error})"))
