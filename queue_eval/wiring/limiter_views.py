"""Looks at the limiter of a judge account, and what a run brings into it."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from queue_eval.core import objects
from queue_eval.core.errors import DataError
from queue_eval.core.limiter_stats import LimiterStats, merged
from queue_eval.core.limits import Lane, lane_of
from queue_eval.core.location import canonical
from queue_eval.limiter.view import LimiterView
from queue_eval.ports import Store

if TYPE_CHECKING:
    from queue_eval.core.manifest import Manifest  # see wiring.queues

log = logging.getLogger("queue_eval.limiter")


def limiter_key(judge: Mapping[str, Any]) -> str:
    """Name the limiter of a judge, given as its settings are dumped: one for each provider, account and model."""
    kind = judge["type"]
    return f"{canonical(judge.get('base_url', kind))}:{judge.get('account', 'default')}:{judge.get('model', kind)}"


def lane_of_run(run_id: str, settings: Mapping[str, Any]) -> Lane:
    """`settings`: the manifest's."""
    try:
        return lane_of(run_id, settings["limits"])
    except (KeyError, ValueError):
        raise DataError(f"{objects.MANIFEST}: the limits in it cannot be read; start a new run") from None


def limiter_view(redis: Redis, settings: Mapping[str, Any]) -> LimiterView:
    """`settings`: the manifest's."""
    try:
        return LimiterView(redis, key=limiter_key(settings["judge"]))
    except (KeyError, TypeError, AttributeError):
        raise DataError(f"{objects.MANIFEST}: the judge in it cannot be read; start a new run") from None


async def limiter_now(redis: Redis, settings: Mapping[str, Any]) -> LimiterStats | None:
    """Return how the limiter stands, None while Redis is away. `settings`: the manifest's."""
    try:
        return await limiter_view(redis, settings).stats()
    except (RedisError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # away, or written by another hand: the run's own figures stand without it


async def forget_worker(redis: Redis, settings: Mapping[str, Any], prefix: str) -> None:
    """Free what a worker was promised that was killed, and could not leave by itself. `settings`: the manifest's."""
    with suppress(RedisError, OSError, DataError):  # the limiter finds out, some seconds later
        await limiter_view(redis, settings).forget(prefix)


async def keep_timeline(redis: Redis, manifest: "Manifest", store: Store) -> None:
    """Before a run is finalized: what the limiter did meanwhile goes into the store. A report without it is a report all the same."""
    try:
        seen = await limiter_view(redis, manifest.settings).timeline()
    except (RedisError, OSError):
        return
    except (ValueError, LookupError, TypeError, AttributeError):
        log.warning("the limiter's state in Redis cannot be read; the report goes without its timeline")
        return
    if seen:
        stored = await store.get(objects.LIMITER)
        await store.put(objects.LIMITER, merged(stored, seen, since=manifest.created_at))
