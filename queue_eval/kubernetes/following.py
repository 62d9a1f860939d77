"""What the pods of a run write, as they write it: of those too that begin later."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from queue_eval.core.errors import NoInputError, QueueEvalError
from queue_eval.kubernetes.answers import BusyError
from queue_eval.kubernetes.cluster import Cluster, Object
from queue_eval.kubernetes.listing import jobs_and_pods
from queue_eval.kubernetes.names import selector
from queue_eval.kubernetes.seen import JobSeen, is_running, pod_end, role_of
from queue_eval.kubernetes.watching import TAKE_UP_AGAIN_S, Watching
from queue_eval.ports import Now

MOST_AT_ONCE = 50  # each takes a connection
LOOK_EVERY_S = 0.5
LIST_EVERY = 20  # looks, of a nightly that the watch does not know because it has not begun
OVERLAP_S = 2  # of a stream that is taken up with what was read before it broke off

Said = queue.SimpleQueue[tuple[str, str]]
Sleep = Callable[[float], object]


def lines(
    cluster: Cluster, run_id: str, role: str | None, *, tail: int | None, sleep: Sleep, now: Now
) -> Iterator[tuple[str, str]]:
    """(pod, line), until every Job has ended and every pod is read. NoInputError when they are too many."""
    said: Said = queue.SimpleQueue()
    readers: dict[str, threading.Thread] = {}
    watching = Watching(cluster, selector(run_id, role), sleep=sleep)
    not_begun: tuple[list[Object], list[Object]] = [], []
    listed: list[Object] | None = None
    for look, seen in enumerate(watching.changes(LOOK_EVERY_S)):
        if not seen.jobs and look % LIST_EVERY == 0:
            not_begun = jobs_and_pods(cluster, run_id)
        jobs, pods = (list(seen.jobs.values()), list(seen.pods.values())) if seen.jobs else not_begun
        ended = bool(jobs) and all(JobSeen.of(job).ended for job in jobs)
        # the streams are two: a Job's end may be heard of before its last pod
        listed = (listed or jobs_and_pods(cluster, run_id)[1]) if ended else None
        for name in sorted(_begun(listed or pods, role) - set(readers)):
            reader = _Reader(cluster, name, said, sleep, now)
            readers[name] = threading.Thread(target=reader.read, args=(tail,), daemon=True)
            readers[name].start()
        reading = sum(thread.is_alive() for thread in readers.values())
        if reading > MOST_AT_ONCE:
            raise NoInputError(f"{reading} pods are more than {MOST_AT_ONCE} to follow at once; name a --role")
        while not said.empty():
            yield said.get()
        if ended and not reading:
            return


def _begun(pods: Iterable[Object], role: str | None) -> set[str]:
    begun = (pod for pod in pods if is_running(pod) or pod_end(pod))
    return {pod["metadata"]["name"] for pod in begun if role in (None, role_of(pod))}


class _Reader:
    """Of one pod's log, to its container's end: whatever cuts the stream before, it is taken up again."""

    def __init__(self, cluster: Cluster, pod: str, said: Said, sleep: Sleep, now: Now) -> None:
        self._cluster = cluster
        self._pod = pod
        self._said = said
        self._sleep = sleep
        self._now = now

    def read(self, tail: int | None) -> None:
        try:
            self._read(tail)
        except QueueEvalError as error:
            # one pod that is gone must not end the others' lines
            self._said.put((self._pod, f"no log ({error})"))

    def _read(self, tail: int | None) -> None:
        since_s: int | None = None
        while True:
            with suppress(BusyError):
                for line in self._cluster.follow_log(self._pod, tail=tail, since_s=since_s):
                    self._said.put((self._pod, line))
            cut_at = self._now()
            pod = self._cluster.get("pods", self._pod)
            if pod is None or not is_running(pod):
                return
            self._sleep(TAKE_UP_AGAIN_S)
            tail, since_s = None, int(self._now() - cut_at) + OVERLAP_S
