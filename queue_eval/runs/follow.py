"""Follow a run until it is over: through outages, and through a Redis that loses it."""

import contextlib
from collections.abc import Awaitable, Callable

from queue_eval.core.errors import NoInputError, RunAbortedError, UnavailableError
from queue_eval.core.run import RunState, RunStats
from queue_eval.ports.clock import Now, Sleep
from queue_eval.ports.queue import Steering

LOOK_EVERY_S = 0.5
RELEASED_WITHIN_S = 30.0  # after an abort; leases of killed workers are never released
STALLED_AFTER_S = 10.0
LOST_AFTER_S = 60.0  # a run that this Redis has not known for so long is not about to be enqueued

Show = Callable[[RunStats], Awaitable[object]]


class Follower:
    """Looks at a run, and enqueues again what Redis has lost of it."""

    def __init__(
        self,
        steering: Steering,
        *,
        resume: Callable[[], Awaitable[object]],
        brings_runs_back: bool,
        is_known: bool = False,
        unknown_for_s: float = 0.0,
        notice: Callable[[str], None],
        sleep: Sleep,
        now: Now,
    ) -> None:
        """`resume`: enqueue what has no stored result.

        Single cases that Redis lost are enqueued again always, a whole run only where this follower `brings_runs_back`.
        Where it does not, a run that Redis does not know is waited for `unknown_for_s`. `is_known`: it was enqueued
        already.
        """
        self._steering = steering
        self._resume = resume
        self._brings_runs_back = brings_runs_back
        self._unknown_for_s = unknown_for_s
        self._notice = notice
        self._sleep = sleep
        self._now = now
        self._is_known = is_known
        self._unknown_since: float | None = None
        self._stalled_since: float | None = None
        self._aborted_at: float | None = None

    async def look(self) -> RunStats | None:
        """Return the run's state and counts; None while Redis is unavailable or does not know the run.

        NoInputError when Redis does not know the run and waiting is over; RunAbortedError when Redis forgot a run that
        the store knows as aborted.
        """
        try:
            stats = await self._steering.stats()
        except UnavailableError:
            return None
        except NoInputError:
            await self._wait_or_bring_back()
            return None
        self._is_known, self._unknown_since = True, None
        await self._bring_lost_cases_back(stats)
        return stats

    async def until_over(
        self, *, timeout_s: float | None = None, show: Show | None = None, show_every_s: float = 0.0
    ) -> RunStats | None:
        """Return the run's last state; None when the time is over, or Redis does not know the run any more.

        The gate lets no incomplete run pass, so a report can be made in either case.
        """
        until = None if timeout_s is None else self._now() + timeout_s
        shown_at: float | None = None
        while until is None or self._now() < until:
            try:
                stats = await self.look()
            except (NoInputError, RunAbortedError):
                return None
            if stats:
                is_over = stats.state.over and not self._is_still_releasing(stats)
                if show and (is_over or shown_at is None or self._now() - shown_at >= show_every_s):
                    shown_at = self._now()
                    await show(stats)
                if is_over:
                    return stats
            await self._sleep(LOOK_EVERY_S)
        return None

    def _is_still_releasing(self, stats: RunStats) -> bool:
        """Of an aborted run: its workers store what their cases have cost, and the report counts it."""
        if stats.state is not RunState.ABORTED or not stats.leased:
            return False
        self._aborted_at = self._now() if self._aborted_at is None else self._aborted_at
        return self._now() - self._aborted_at < RELEASED_WITHIN_S

    async def _bring_lost_cases_back(self, stats: RunStats) -> None:
        """Between two steps of the queue nothing waits for a moment; after some seconds cases are missing."""
        if not stats.stalled:
            self._stalled_since = None
            return
        self._stalled_since = self._now() if self._stalled_since is None else self._stalled_since
        if self._now() - self._stalled_since >= STALLED_AFTER_S:
            self._stalled_since = None
            self._notice("Redis lost cases of the run; enqueueing those without a stored result")
            with contextlib.suppress(UnavailableError):
                await self._resume()

    async def _wait_or_bring_back(self) -> None:
        """A run that was never known may be about to be enqueued; one that was known is lost."""
        self._unknown_since = self._now() if self._unknown_since is None else self._unknown_since
        unknown_for_s = self._now() - self._unknown_since
        if not self._brings_runs_back:
            if self._is_known or unknown_for_s >= self._unknown_for_s:
                raise NoInputError("Redis does not know the run")
            return
        if self._is_known or unknown_for_s >= LOST_AFTER_S:
            self._notice("Redis lost the run; enqueueing the cases without a stored result")
            try:
                await self._resume()
            except UnavailableError:
                self._is_known = True  # try again at the next look
            else:
                self._is_known, self._unknown_since = False, None
