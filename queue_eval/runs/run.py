"""A run whose inputs are frozen."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from queue_eval.core.manifest import Manifest
from queue_eval.core.settings.run import RunSettings
from queue_eval.limiter.view import LimiterView
from queue_eval.ports.store import Store
from queue_eval.wiring import limiter_views, queues, stores
from queue_eval.wiring.queues import RunQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What its manifest froze, and where its parts are."""

    manifest: Manifest
    location: str  # of the store, as users name it
    store: Store
    queue: RunQueue

    @property
    def run_id(self) -> str:
        return self.manifest.run_id

    @property
    def settings(self) -> RunSettings:
        return self.manifest.settings

    @property
    def limiter(self) -> LimiterView:
        """Return a view of the limiter that this run shares with all runs of its judge."""
        return limiter_views.view_for(self.queue.redis, self.settings.judge)


@asynccontextmanager
async def opened_run(
    run_id: str,
    location: str,
    redis_url: str,
    environment: Mapping[str, str],
    *,
    wait_s: float = 0.0,
    store_gives_up_after_s: float | None = stores.GIVE_UP_AFTER_S,
) -> AsyncIterator[Run]:
    """Yield a run that is enqueued, or is about to be: `wait_s` bounds the wait for its manifest and for Redis."""
    store = stores.open_store(location, run_id, give_up_after_s=store_gives_up_after_s)
    manifest = await stores.awaited_manifest(store, run_id, location, wait_s=wait_s)
    async with queues.awaited_redis(redis_url, environment, wait_s=wait_s) as client:
        yield Run(manifest=manifest, location=location, store=store, queue=RunQueue.of(client, run_id))
