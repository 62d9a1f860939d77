"""Waits until a run is over: through outages, and through a Redis that forgets it."""

import contextlib
from collections.abc import Awaitable, Callable

from queue_eval.core.errors import NoInputError, RunAbortedError, UnavailableError
from queue_eval.core.run import RunState, RunStats
from queue_eval.ports import Now, Sleep, Steering

LOOK_EVERY_S = 0.5
RELEASED_WITHIN_S = 30.0  # after an abort; what the dead hold is never given back
STALLED_AFTER_S = 10.0
LOST_AFTER_S = 60.0  # a run that this Redis has not known for so long is not about to be enqueued


class Awaiting:
    """`restore` enqueues again what Redis has lost: cases one by one, or all of the run where `restores_runs`.

    Where not, a run that Redis does not know is waited for `unknown_for_s`; then the store tells what there is, and the wait is over.
    """

    def __init__(
        self,
        steering: Steering,
        *,
        restore: Callable[[], Awaitable[object]],
        restores_runs: bool,
        unknown_for_s: float,
        tell: Callable[[RunStats], Awaitable[object]],
        tell_every_s: float,
        sleep: Sleep,
        now: Now,
    ) -> None:
        self._steering = steering
        self._restore = restore
        self._restores_runs = restores_runs
        self._unknown_for_s = unknown_for_s
        self._tell = tell
        self._tell_every_s = tell_every_s
        self._sleep = sleep
        self._now = now
        self._known = False
        self._told_at = -tell_every_s
        self._unknown_since: float | None = None
        self._aborted_at: float | None = None

    async def over(self, *, timeout_s: float | None = None) -> RunStats | None:
        """The run as it ended; None when the time is over or nobody knows it any more: the gate lets no incomplete run pass."""
        until = None if timeout_s is None else self._now() + timeout_s
        while until is None or self._now() < until:
            try:
                stats = await self._steering.stats()
            except UnavailableError:
                pass  # Redis is away for a while: the run is not over because of that
            except NoInputError:
                try:
                    if not await self._unknown():
                        return None
                except RunAbortedError:
                    return None  # Redis has forgotten it, and the store knows that it is over
            else:
                self._known = True
                if not stats.stalled:
                    self._unknown_since = None
                else:
                    await self._lost_cases()
                if stats.state.over and not self._still_releasing(stats):
                    await self._tell(stats)
                    return stats
                await self._tell_now_and_then(stats)
            await self._sleep(LOOK_EVERY_S)
        return None

    def _still_releasing(self, stats: RunStats) -> bool:
        """Of an aborted run workers are giving back what they hold, and put down what it has cost: that belongs into the report."""
        if stats.state is not RunState.ABORTED or not stats.leased:
            return False
        self._aborted_at = self._now() if self._aborted_at is None else self._aborted_at
        return self._now() - self._aborted_at < RELEASED_WITHIN_S

    async def _lost_cases(self) -> None:
        """Between two steps of the queue nothing waits for a moment; after some seconds cases are missing."""
        self._unknown_since = self._now() if self._unknown_since is None else self._unknown_since
        if self._now() - self._unknown_since >= STALLED_AFTER_S:
            self._unknown_since = None
            with contextlib.suppress(UnavailableError):
                await self._restore()

    async def _unknown(self) -> bool:
        """Whether to go on: it may not have been enqueued yet; once it was known, it is lost."""
        self._unknown_since = self._now() if self._unknown_since is None else self._unknown_since
        unknown_for_s = self._now() - self._unknown_since
        if not self._restores_runs:
            return not self._known and unknown_for_s < self._unknown_for_s
        if self._known or unknown_for_s >= LOST_AFTER_S:
            self._known, self._unknown_since = False, None
            try:
                await self._restore()
            except UnavailableError:
                self._known = True  # again, at the next look
        return True

    async def _tell_now_and_then(self, stats: RunStats) -> None:
        if self._now() - self._told_at >= self._tell_every_s:
            self._told_at = self._now()
            await self._tell(stats)
