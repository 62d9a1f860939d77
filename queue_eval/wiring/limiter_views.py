"""Views of the limiter of a judge account, and what a run brings into it."""

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from queue_eval.core import objects
from queue_eval.core.errors import DataError
from queue_eval.core.limiter_stats import LimiterStats
from queue_eval.core.limits import Lane, lane_of
from queue_eval.core.location import canonical
from queue_eval.limiter.view import LimiterView

if TYPE_CHECKING:
    from queue_eval.core.settings.judge import JudgeSettings  # see wiring.queues


def limiter_key(judge: Mapping[str, Any]) -> str:
    """Name the limiter of a judge, given as its settings are dumped: one for each provider, account and model."""
    kind = judge["type"]
    return f"{canonical(judge.get('base_url', kind))}:{judge.get('account', 'default')}:{judge.get('model', kind)}"


def lane_of_run(run_id: str, settings: Mapping[str, Any]) -> Lane:
    """`settings`: the manifest's, as JSON has them."""
    try:
        return lane_of(run_id, settings["limits"])
    except (KeyError, ValueError):
        raise DataError(f"{objects.MANIFEST}: the limits in it cannot be read; start a new run") from None


def view_for(redis: Redis, judge: "JudgeSettings") -> LimiterView:
    return LimiterView(redis, key=limiter_key(judge.model_dump()))


def limiter_view(redis: Redis, settings: Mapping[str, Any]) -> LimiterView:
    """`settings`: the manifest's, as JSON has them."""
    try:
        return LimiterView(redis, key=limiter_key(settings["judge"]))
    except (KeyError, TypeError, AttributeError):
        raise DataError(f"{objects.MANIFEST}: the judge in it cannot be read; start a new run") from None


async def limiter_now(view: LimiterView) -> LimiterStats | None:
    """Return how the limiter stands; None while Redis is away, or what is there was written by another program."""
    try:
        return await view.stats()
    except (RedisError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # the run's own figures are shown without it


async def forget_worker(view: LimiterView, prefix: str) -> None:
    """Free what a killed worker had reserved. `prefix`: of the names of its processes."""
    with suppress(RedisError, OSError):  # the limiter finds out, some seconds later
        await view.forget(prefix)
