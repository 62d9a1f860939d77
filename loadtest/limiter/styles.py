"""Limiters in their default good form, behind one face: wait until a call may go."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from redis.asyncio import Redis

from queue_eval.core.limits import Charge, Counting, Lane, Limits
from queue_eval.limiter.shared import SharedLimiter
from queue_eval.ports.limiter import Permit


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What every limiter is given."""

    redis_url: str
    key: str
    process: str
    processes: int
    limit: float  # requests per window
    tokens: float  # per window; 0: no such limit
    window_s: float
    window: str  # how the provider counts: sliding, fixed or bucket
    headers: bool = False


class Limiting(Protocol):
    async def acquire(self, charge: Charge) -> Permit | None: ...

    def answered(self, permit: Permit | None, used: Charge, limits: dict[str, float]) -> None: ...

    async def refused(self, permit: Permit | None, retry_after_s: float | None, limits: dict[str, float]) -> None: ...


class _Other:
    """A limiter that knows nothing of answers: after a 429 its caller sleeps as long as the 429 asks."""

    def answered(self, permit: Permit | None, used: Charge, limits: dict[str, float]) -> None:
        """Nothing to settle."""

    async def refused(self, permit: Permit | None, retry_after_s: float | None, limits: dict[str, float]) -> None:
        await asyncio.sleep(retry_after_s or 1.0)


class _Ours:
    def __init__(self, limiter: SharedLimiter) -> None:
        self._limiter = limiter

    async def acquire(self, charge: Charge) -> Permit:
        return await self._limiter.acquire(charge)

    def answered(self, permit: Permit | None, used: Charge, limits: dict[str, float]) -> None:
        self._limiter.observed(limits)
        if permit:
            self._limiter.settle(permit, used)

    async def refused(self, permit: Permit | None, retry_after_s: float | None, limits: dict[str, float]) -> None:
        self._limiter.observed(limits)
        if permit:
            self._limiter.rate_limited(permit, retry_after_s)


@asynccontextmanager
async def ours(setting: Setting) -> AsyncIterator[Limiting]:
    serial = itertools.count()
    per_minute = 60 / setting.window_s
    lane = Lane(
        name="bench",
        weight=1.0,
        limits=Limits(
            requests=setting.limit * per_minute, tokens=setting.tokens * per_minute if setting.tokens else None
        ),
        counting=Counting(window=setting.window, window_s=setting.window_s),  # type: ignore[arg-type]
        obeys_headers=setting.headers,
    )
    async with Redis.from_url(setting.redis_url) as redis:
        limiter = SharedLimiter(
            redis,
            key=setting.key,
            process=setting.process,
            lane=lane,
            adjusts=True,
            now=time.time,
            new_token=lambda: f"{setting.process}-{next(serial)}",
        )
        yield _Ours(limiter)
        await limiter.close()


@asynccontextmanager
async def aiolimiter_split(setting: Setting) -> AsyncIterator[Limiting]:
    """Each process has its share: the usual way, because nothing is shared."""
    from aiolimiter import AsyncLimiter

    class Split(_Other):
        def __init__(self) -> None:
            self._limiter = AsyncLimiter(setting.limit / setting.processes, setting.window_s)

        async def acquire(self, charge: Charge) -> None:
            await self._limiter.acquire()

    yield Split()


@asynccontextmanager
async def limits_moving_window(setting: Setting) -> AsyncIterator[Limiting]:
    from limits import RateLimitItemPerSecond
    from limits.aio.storage import RedisStorage
    from limits.aio.strategies import MovingWindowRateLimiter

    class Moving(_Other):
        def __init__(self) -> None:
            storage = RedisStorage(f"async+redis+{setting.redis_url}", implementation="redispy")
            self._limiter = MovingWindowRateLimiter(storage)
            self._item = RateLimitItemPerSecond(int(setting.limit), int(setting.window_s))

        async def acquire(self, charge: Charge) -> None:
            while not await self._limiter.hit(self._item, setting.key):
                stats = await self._limiter.get_window_stats(self._item, setting.key)
                await asyncio.sleep(max(0.01, min(stats.reset_time - time.time(), setting.window_s)))

    yield Moving()


@asynccontextmanager
async def throttled_gcra(setting: Setting) -> AsyncIterator[Limiting]:
    from datetime import timedelta

    from throttled.asyncio import RateLimiterType, Throttled, rate_limiter, store

    class Gcra(_Other):
        def __init__(self) -> None:
            self._throttle = Throttled(
                key=setting.key,
                using=RateLimiterType.GCRA.value,
                quota=rate_limiter.per_duration(
                    timedelta(seconds=setting.window_s), int(setting.limit), burst=int(setting.limit)
                ),
                store=store.RedisStore(server=setting.redis_url),
                timeout=setting.window_s * 2,
            )

        async def acquire(self, charge: Charge) -> None:
            while (await self._throttle.limit()).limited:
                pass  # it has waited up to its timeout already

    yield Gcra()


POLLED_BUCKET = """
local t = redis.call('TIME')
local now = t[1] + t[2] / 1e6
local at = redis.call('HMGET', KEYS[1], 'level', 'at')
local level = math.min(tonumber(ARGV[1]), (tonumber(at[1]) or tonumber(ARGV[1])) + (now - (tonumber(at[2]) or now)) * ARGV[2])
local wait = 0
if level >= 1 then level = level - 1 else wait = (1 - level) / ARGV[2] end
redis.call('HSET', KEYS[1], 'level', level, 'at', string.format('%.6f', now))
return tostring(wait)
"""


@asynccontextmanager
async def polled_bucket(setting: Setting) -> AsyncIterator[Limiting]:
    """The token bucket in Redis that is written first everywhere: a refused call comes again."""
    async with Redis.from_url(setting.redis_url) as redis:
        script = redis.register_script(POLLED_BUCKET)

        class Polled(_Other):
            async def acquire(self, charge: Charge) -> None:
                rate = setting.limit / setting.window_s
                while wait_s := float(await script(keys=[setting.key], args=[setting.limit, rate])):
                    await asyncio.sleep(max(0.01, wait_s))

        yield Polled()


STYLES: dict[str, Callable[[Setting], AbstractAsyncContextManager[Limiting]]] = {
    "ours": ours,
    "aiolimiter, a share each": aiolimiter_split,
    "limits, moving window": limits_moving_window,
    "throttled-py, GCRA": throttled_gcra,
    "polled bucket": polled_bucket,
}
