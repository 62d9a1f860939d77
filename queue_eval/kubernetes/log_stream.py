"""What the pods of a run write, as they write it: of those too that begin later."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator

from queue_eval.core.errors import AccessError, NoInputError, QueueEvalError
from queue_eval.kubernetes.cluster import Cluster, Object
from queue_eval.kubernetes.errors import BusyError
from queue_eval.kubernetes.names import selector
from queue_eval.kubernetes.queries import jobs_and_pods
from queue_eval.kubernetes.status import JobSeen, is_running, pod_end, role_of
from queue_eval.kubernetes.watching import DENIALS, TAKE_UP_AGAIN_S, Watching

MOST_AT_ONCE = 50  # each takes a connection
LOOK_EVERY_S = 0.5
LIST_EVERY = 20  # looks, of a nightly that the watch does not know because it has not begun

Lines = queue.SimpleQueue[tuple[str, str]]
Sleep = Callable[[float], object]


def lines(
    cluster: Cluster, run_id: str, role: str | None, *, tail: int | None, sleep: Sleep
) -> Iterator[tuple[str, str]]:
    """(pod, line), until every Job has ended and every pod is read. NoInputError when they are too many."""
    read: Lines = queue.SimpleQueue()
    readers: dict[str, threading.Thread] = {}
    listed: list[Object] | None = None
    watching = Watching(cluster, selector(run_id, role), sleep=sleep)
    elsewhere: tuple[list[Object], list[Object]] = [], []
    has_begun = False
    for look, seen in enumerate(watching.changes(LOOK_EVERY_S)):
        has_begun = has_begun or bool(seen.jobs)
        if not has_begun and look % LIST_EVERY == 0:
            elsewhere = jobs_and_pods(cluster, run_id)
        jobs, pods = (list(seen.jobs.values()), list(seen.pods.values())) if has_begun else elsewhere
        ended = all(JobSeen.of(job).ended for job in jobs)  # of a run that is deleted meanwhile there are none
        # the streams are two: a Job's end may arrive before its last pod
        listed = (jobs_and_pods(cluster, run_id)[1] if listed is None else listed) if ended else None
        for name in sorted(_begun([*pods, *(listed or ())], role) - set(readers)):
            reader = _Reader(cluster, name, read, sleep)
            readers[name] = threading.Thread(target=reader.read, args=(tail,), daemon=True)
            readers[name].start()
        reading = sum(thread.is_alive() for thread in readers.values())
        if reading > MOST_AT_ONCE:
            raise NoInputError(f"{reading} pods are more than {MOST_AT_ONCE} to follow at once; name a --role")
        while not read.empty():
            yield read.get()
        if ended and not reading:
            return


def _begun(pods: Iterable[Object], role: str | None) -> set[str]:
    begun = (pod for pod in pods if is_running(pod) or pod_end(pod))
    return {pod["metadata"]["name"] for pod in begun if role in (None, role_of(pod))}


class _Reader:
    """Of one pod's log, to its container's end: whatever cuts the stream before, it is taken up after the last line
    that was read.
    """

    def __init__(self, cluster: Cluster, pod: str, read: Lines, sleep: Sleep) -> None:
        self._cluster = cluster
        self._pod = pod
        self._read = read
        self._sleep = sleep
        self._last = ""  # when the last line was written

    def read(self, tail: int | None) -> None:
        denials = 0
        while denials <= DENIALS:
            try:
                self._follow(tail)
                pod = self._cluster.get("pods", self._pod)
                if pod is None or pod_end(pod):
                    return
            except BusyError:
                pass  # the server or the node is away
            except AccessError:
                denials += 1
            except QueueEvalError as error:
                # one pod that is gone must not end the others' lines
                self._read.put((self._pod, f"no log ({error})"))
                return
            self._sleep(TAKE_UP_AGAIN_S)
            tail = None if self._last else tail
        self._read.put((self._pod, "no log (its reading is denied)"))

    def _follow(self, tail: int | None) -> None:
        since = self._last
        for when, line in self._cluster.follow_log(self._pod, tail=tail, since=since):
            self._last = when
            if when > since:
                self._read.put((self._pod, line))
