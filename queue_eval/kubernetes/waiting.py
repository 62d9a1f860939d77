"""Waits for a run's verdict through the API server alone, and reports what keeps it from coming."""

from collections.abc import Callable
from contextlib import suppress

from queue_eval.core.errors import (
    AccessError,
    ConfigError,
    DataError,
    JudgeRefusedError,
    NoInputError,
    QueueEvalError,
    StoreError,
    UnavailableError,
)
from queue_eval.core.run import RunState
from queue_eval.core.status_line import StatusLine
from queue_eval.kubernetes.cluster import Cluster, Object
from queue_eval.kubernetes.diagnostics import Trouble, troubles
from queue_eval.kubernetes.errors import BusyError
from queue_eval.kubernetes.names import FOLLOWERS, selector
from queue_eval.kubernetes.overview import last_word, warnings
from queue_eval.kubernetes.queries import drivers_pods, jobs_and_pods
from queue_eval.kubernetes.status import FAILING_VERDICTS, SETTLED_S, JobSeen, is_running, pod_end, role_of
from queue_eval.kubernetes.watching import Seen, Watching
from queue_eval.ports.clock import Now

TICK_S = 2.0
STATUS_EVERY_S = 10.0  # a look into one pod's log, however many pods there are
EVENTS_AFTER_S = 10.0  # without pods: the API server's events may name the reason

_BY_CODE = {kind.exit_code: kind for kind in (DataError, NoInputError, StoreError, JudgeRefusedError)}

Sleep = Callable[[float], object]


class RunWait:
    """`notice` is called for every change worth a line.

    `blocked_s` without a running pod, in trouble, ends the wait.
    """

    def __init__(
        self,
        cluster: Cluster,
        run_id: str,
        *,
        notice: Callable[[str], None],
        show: Callable[[StatusLine], None],
        blocked_s: float,
        sleep: Sleep,
        now: Now,
    ) -> None:
        self._cluster = cluster
        self._run_id = run_id
        self._notice = notice
        self._show = show
        self._blocked_s = blocked_s
        self._now = now
        self._watching = Watching(cluster, selector(run_id), sleep=sleep)
        self.reasons: list[str] = []  # the gate's, where the follower's log has them still
        self._noticed: set[str] = set()
        self._hidden: Trouble | None = None
        self._status_at = self._events_at = self._drivers_at = now()
        self._drivers: dict[str, Object] = {}
        self._unseen: Seen | None = None
        self._events: list[Object] = []
        self._status: StatusLine | None = None
        self._follower: Trouble | None = None
        self._blocked_since: float | None = None

    def verdict(self) -> int:
        """The finalizer's exit code.

        UnavailableError or ConfigError when there will be none without a person's help.
        """
        for watched in self._watching.changes(TICK_S):
            seen = self._with_drivers(watched) if watched.jobs else self._not_begun()
            code = self._ended(seen)
            if code is not None:
                self._say_status(seen)
                return code
            self._look_for_trouble(seen)
            if self._now() - self._status_at >= STATUS_EVERY_S:
                self._say_status(seen)
        raise AssertionError("a watch never ends by itself")

    def _with_drivers(self, seen: Seen) -> Seen:
        """A driver's pod joins what is watched when it runs; while none does, there may be one that cannot."""
        drivers = [job for job in seen.jobs.values() if role_of(job) == "driver"]
        if not drivers or any(role_of(pod) == "driver" and is_running(pod) for pod in seen.pods.values()):
            self._drivers.clear()
        elif self._now() - self._drivers_at >= EVENTS_AFTER_S or any(JobSeen.of(job).ended for job in drivers):
            self._drivers_at = self._now()
            with suppress(AccessError, BusyError):  # the watches bear with it too, or raise it
                self._drivers = {pod["metadata"]["name"]: pod for pod in drivers_pods(self._cluster, drivers)}
        return Seen(seen.jobs, {**self._drivers, **seen.pods})

    def _not_begun(self) -> Seen:
        """A nightly's driver joins what is watched when it begins."""
        if self._unseen and self._now() - self._drivers_at < EVENTS_AFTER_S:
            return self._unseen
        self._drivers_at = self._now()
        try:
            jobs, pods = jobs_and_pods(self._cluster, self._run_id)
        except (AccessError, BusyError):
            if self._unseen is None:
                raise
            return self._unseen
        if not jobs:
            raise NoInputError(
                f"run {self._run_id!r}: namespace {self._cluster.namespace} has nothing of it (any more); its results"
                " are in the store"
            )
        self._unseen = Seen(*({body["metadata"]["name"]: body for body in bodies} for bodies in (jobs, pods)))
        return self._unseen

    def _ended(self, seen: Seen) -> int | None:
        jobs = [JobSeen.of(job) for job in seen.jobs.values()]
        for job in jobs:
            if job.role in FOLLOWERS and job.ended:
                return self._verdict_of(job, seen)
            if job.role == "producer" and job.ended == "Failed" and (missing := self._not_enqueued(job, seen)):
                raise self._failure(job, seen, missing)
        return None

    def _not_enqueued(self, producer: JobSeen, seen: Seen) -> str:
        """Return what a failed producer has left undone; "" where the run is sealed all the same, or its status since
        is not known yet.
        """
        if self._state in (None, RunState.OPEN):
            self._say_status(seen)
        is_followed = any(role_of(pod) in FOLLOWERS and is_running(pod) for pod in seen.pods.values())
        if is_followed and self._status and self._status.stats.now_s < producer.ended_at_s + SETTLED_S:
            return ""
        return {None: "nothing was enqueued", RunState.OPEN: "not all was enqueued"}.get(self._state, "")

    @property
    def _state(self) -> RunState | None:
        return self._status.stats.state if self._status else None

    def _verdict_of(self, job: JobSeen, seen: Seen) -> int:
        if job.ended == "Complete":
            return 0
        codes = [end.code for pod in seen.pods.values() if role_of(pod) == job.role and (end := pod_end(pod))]
        codes += [job.code] if job.code is not None else []
        if job.reason == "PodFailurePolicy" and (
            code := next((c for c in reversed(codes) if c in FAILING_VERDICTS), None)
        ):
            return code
        raise self._failure(job, seen, "there is no verdict; its results are in the store")

    def _failure(self, job: JobSeen, seen: Seen, outcome: str) -> QueueEvalError:
        """With the exit code of the pod that no restart would have mended."""
        found = [str(t) for t in troubles([], [p for p in seen.pods.values() if role_of(p) == job.role])]
        text = "\n".join([*found, f"Job {job.name} failed ({job.reason}): {job.message}; {outcome}"])
        return _BY_CODE.get(job.code or 0, ConfigError if job.reason == "PodFailurePolicy" else UnavailableError)(text)

    # --- trouble -----------------------------------------------------------------------------------------------------

    def _look_for_trouble(self, seen: Seen) -> None:
        events = self._recent_events(seen)
        found = troubles(seen.jobs.values(), seen.pods.values(), events, self._status, self._follower)
        found += [self._hidden] if self._hidden else []
        for trouble in found:
            if (line := str(trouble)) not in self._noticed:
                self._noticed.add(line)
                self._notice(line)
        blocking = [trouble for trouble in found if trouble.blocks]
        if not blocking or self._goes_on(seen):
            self._blocked_since = None
            return
        self._blocked_since = self._blocked_since or self._now()
        if self._now() - self._blocked_since >= self._blocked_s:
            raise UnavailableError(self._given_up(blocking))

    def _goes_on(self, seen: Seen) -> bool:
        """Return whether a pod is at work, or at the report of a run that is over: others may wait for a node
        meanwhile.
        """
        roles = {role_of(pod) for pod in seen.pods.values() if is_running(pod)}
        jobs = map(JobSeen.of, seen.jobs.values())
        is_open = self._state in (None, RunState.OPEN)
        waits_for_producer = is_open and any(job.role == "producer" and not job.ended for job in jobs)
        at_its_end = self._state is not None and self._state.over and not roles.isdisjoint(FOLLOWERS)
        return at_its_end or ("producer" if waits_for_producer else "worker") in roles

    def _given_up(self, blocking: list[Trouble]) -> str:
        mended = f"nothing is lost: mend it, then queue-eval k8s wait {self._run_id} {self._cluster.here}"
        return "\n".join([*(str(trouble) for trouble in blocking), f"run {self._run_id!r} cannot go on; {mended}"])

    def _recent_events(self, seen: Seen) -> list[Object]:
        """Asked for only while pods are missing or do not start."""
        pending = any((pod.get("status") or {}).get("phase") == "Pending" for pod in seen.pods.values())
        started = {role_of(pod) for pod in seen.pods.values()}
        missing = any(JobSeen.of(job).role not in started and not JobSeen.of(job).ended for job in seen.jobs.values())
        if (pending or missing) and self._now() - self._events_at >= EVENTS_AFTER_S:
            self._events_at = self._now()
            self._events, self._hidden = warnings(self._cluster, seen.jobs.values(), seen.pods.values())
        return self._events if pending or missing else []

    def _say_status(self, seen: Seen) -> None:
        self._status_at = self._now()
        word = last_word(self._cluster, list(seen.pods.values()))
        self._follower = word.trouble
        if word.report:
            self.reasons = list(word.report.get("reasons") or ())
        if word.status:
            self._status = word.status
            self._show(word.status)
