"""The limiter of a judge account, and looks at it."""

import asyncio
import secrets
import time

from redis.asyncio import Redis
from redis.exceptions import RedisError

from queue_eval.config.settings import (
    JudgeSettings,
    LexicalJudge,
    LimitSettings,
)
from queue_eval.core import objects
from queue_eval.core.limiter_stats import LimiterStats, merged
from queue_eval.core.limits import Lane
from queue_eval.core.manifest import Manifest
from queue_eval.limiter.shared import SharedLimiter
from queue_eval.limiter.unlimited import Unlimited
from queue_eval.limiter.view import LimiterView
from queue_eval.ports import Limiter, Store
from queue_eval.wiring.manifests import ManifestSettings


def limiter_key(judge: JudgeSettings) -> str:
    """Who shares a limit: everybody with the same provider, account and model."""
    return f"{getattr(judge, 'base_url', judge.type)}:{judge.account}:{judge.model}"


def lane_of(run_id: str, limits: LimitSettings) -> Lane:
    return Lane(
        name=run_id,
        weight=limits.weight,
        limits=limits.per_minute,
        counting=limits.counting,
        obeys_headers=limits.headers,
    )


def build_limiter(judge: JudgeSettings, limits: LimitSettings, redis: Redis | None, run_id: str, who: str) -> Limiter:
    alone = isinstance(judge, LexicalJudge) and not limits.per_minute.known
    if redis is None or alone:
        return Unlimited(now=time.time, sleep=asyncio.sleep)
    return SharedLimiter(
        redis,
        key=limiter_key(judge),
        process=f"{who}-{secrets.token_hex(3)}",
        lane=lane_of(run_id, limits),
        adjusts=limits.settle == "adjust",
        now=time.monotonic,
        new_token=lambda: secrets.token_hex(8),
    )


def limiter_view(redis: Redis, manifest: Manifest) -> LimiterView:
    return LimiterView(redis, key=limiter_key(ManifestSettings.of(manifest).judge))


async def limiter_now(redis: Redis, manifest: Manifest) -> LimiterStats | None:
    """None while Redis is away."""
    try:
        return await limiter_view(redis, manifest).stats()
    except (RedisError, OSError):
        return None


async def keep_timeline(redis: Redis, manifest: Manifest, store: Store) -> None:
    """Before a run is finalized: what the limiter did meanwhile goes into the store. A report without it is a report all the same."""
    try:
        seen = await limiter_view(redis, manifest).timeline()
    except (RedisError, OSError):
        return
    if seen:
        stored = await store.get(objects.LIMITER)
        await store.put(objects.LIMITER, merged(stored, seen, since=manifest.created_at))
