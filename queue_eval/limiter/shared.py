"""The limiter of one process, as the judge's calls use it."""

import asyncio
import contextlib
from collections.abc import Callable

from aiolimiter import AsyncLimiter
from redis.asyncio import Redis

from queue_eval.core.limits import NO_CHARGE, Charge, Lane, pause_s
from queue_eval.limiter.keys import LimiterKeys
from queue_eval.limiter.sync_script import SyncReply
from queue_eval.limiter.synchronizer import Synchronizer
from queue_eval.limiter.waiter import TOO_CHEAP, Waiter
from queue_eval.ports.clock import Now
from queue_eval.ports.limiter import Permit

REPORT_HEADERS_S = 5.0
GUARD_LOOK_S = 1.0


class SharedLimiter:
    """First come, first served over all processes that name the same key, by lanes.

    Without Redis: a safe share for a while, then nothing.
    """

    def __init__(
        self, redis: Redis, *, key: str, process: str, lane: Lane, adjusts: bool, now: Now, new_token: Callable[[], str]
    ) -> None:
        """`process`: a name that no other process has.

        `adjusts`: the provider charges what a call really used, so the rest is given back.
        """
        self._sync = Synchronizer(redis, LimiterKeys(key), process=process, lane=lane, now=now, new_token=new_token)
        self._waiters = self._sync.waiters
        self._adjusts = adjusts
        self._lane = lane
        self._now = now
        self._guard: AsyncLimiter | None = None  # None: no limit of requests is known
        # generation and serial of each permit that was handed out and not settled; each is settled at most once
        self._unsettled: set[tuple[str, int]] = set()
        self._known_headers_at = 0.0  # when the headers were reported last

    async def acquire(self, charge: Charge, again: Callable[[], Charge] | None = None) -> Permit:
        is_first = not self._waiters
        waiter = self._waiters.add(charge, again)
        asked_at = self._now()
        # while an earlier one waits, the loop looks soon enough
        self._sync.call_arrived(urgent=is_first)
        try:
            granted = await waiter.granted
            self._sync.lateness.note(self._now() - granted.late_since)
            await self._pass_guard()
        except asyncio.CancelledError:
            self._abandon(waiter)
            raise
        self._unsettled.add((granted.generation, granted.serial))
        return Permit(
            charge=waiter.charge,
            waited_s=self._now() - asked_at,
            granted_at=self._now(),
            generation=granted.generation,
            serial=granted.serial,
        )

    async def _pass_guard(self) -> None:
        """Wait until this process alone is within what is allowed to all: never, while the limiter keeps its word.

        A limit that was damaged in Redis is another one soon, and this call must not wait for the rate of the first.
        """
        while guard := self._guard_now():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if guard.has_capacity() else GUARD_LOOK_S):
                    await guard.acquire()
                    return

    def _abandon(self, waiter: Waiter) -> None:
        if waiter.granted.done() and not waiter.granted.cancelled() and not waiter.granted.exception():
            self._waiters.in_flight -= 1
            self._sync.give_back(waiter.charge, waiter.granted.result().generation)
        else:
            self._waiters.leave(waiter)

    def settle(self, permit: Permit, used: Charge, *, answered: bool = False) -> None:
        """NO_CHARGE is a request that never left: its permit is given back whatever the provider's policy."""
        if (permit.generation, permit.serial) not in self._unsettled:
            return
        self._unsettled.discard((permit.generation, permit.serial))
        self._waiters.in_flight -= 1
        held_s = self._now() - permit.granted_at
        if answered:
            self._sync.feedback.answered(held_s / self._lane.in_flight.timeout_s)
        if self._sync.is_bounded:
            self._sync.soon()  # another process may wait for this place
        if self._adjusts or used == NO_CHARGE:
            late = held_s > self._lane.counting.window_s
            self._sync.give_back(permit.charge - used, permit.generation, late=late)

    def rate_limited(self, permit: Permit, retry_after_s: float | None) -> None:
        asked_s = pause_s(retry_after_s)
        self._sync.feedback.rate_limited(self._serial(permit), int(asked_s * 1000))
        self._sync.outage.pause(self._now() + (asked_s or 1.0))
        self.settle(permit, Charge(requests=permit.charge.requests))
        self._sync.keep_going(urgent=True)

    def timed_out(self, permit: Permit) -> None:
        self._sync.feedback.timed_out(self._serial(permit))
        self.settle(permit, permit.charge)
        self._sync.keep_going(urgent=True)

    def _serial(self, permit: Permit) -> int:
        """Return 0 for a permit of a state that is gone: its number gives no order of releases."""
        return permit.serial if permit.generation == self._sync.generation else 0

    @property
    def output_tokens(self) -> float | None:
        return self._sync.reply.output_tokens or None if self._sync.reply else None

    def answers_take(self, output_tokens: float) -> None:
        known = self.output_tokens or 0.0
        if not known / TOO_CHEAP <= output_tokens <= known * TOO_CHEAP:
            self._sync.feedback.output_tokens = output_tokens
            self._sync.keep_going(urgent=False)

    def observed(self, per_minute: dict[str, float]) -> None:
        known = self._sync.known_headers
        is_news = any(known.get(d) != limit for d, limit in per_minute.items())
        # another process may have reported other limits since
        is_due = self._now() - self._known_headers_at >= REPORT_HEADERS_S
        if per_minute and (is_news or is_due) and self._lane.obeys_headers:
            self._sync.feedback.headers |= per_minute
            known |= per_minute
            self._known_headers_at = self._now()
            self._sync.keep_going(urgent=is_news)

    def _guard_now(self) -> AsyncLimiter | None:
        """Return a leaky bucket that fills at the limit's rate and holds a window's worth, or the burst where that is
        more.
        """
        reply = self._sync.reply
        size = _guard_size(reply) if reply else None
        if size is None:
            self._guard = None
        elif self._guard is None or (self._guard.max_rate, self._guard.time_period) != size:
            self._guard = AsyncLimiter(*size)
        return self._guard

    async def close(self) -> None:
        await self._sync.close()


def _guard_size(reply: SyncReply) -> tuple[float, float] | None:
    """Return how many requests the guard holds, and in how many seconds it fills; None without a limit."""
    per_s = reply.limit.get("requests", 0.0) / 60
    holds = max(1.0, per_s * reply.window_s, reply.burst.get("requests", 0.0))
    return (holds, holds / per_s) if per_s else None
