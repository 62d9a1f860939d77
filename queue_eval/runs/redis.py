"""The Redis of a run that is produced on a shared server."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from queue_eval.queue.server import check_server
from queue_eval.wiring import queues


@asynccontextmanager
async def shared_redis(
    url: str,
    environment: Mapping[str, str],
    *,
    password_env: str | None = None,
    wait_s: float = 0.0,
    notice: Callable[[str], None],
) -> AsyncIterator[Redis]:
    """Yield a client of a server that can hold a run. `wait_s`: for a server that is unavailable.

    `notice` gets a warning where the server's own settings endanger a run. UnavailableError or AccessError where it
    cannot be used.
    """
    async with queues.awaited_redis(url, environment, password_env=password_env, wait_s=wait_s) as client:
        await check_server(client, url, notice)
        yield client
