"""The Lua scripts, each called with the run's keys and the arguments that all of them share."""

from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis

from queue_eval.ports import Now
from queue_eval.queue.connection import redis_errors
from queue_eval.queue.keys import RunKeys


@cache
def _source(name: str) -> str:
    folder = files("queue_eval.queue") / "lua"
    return (folder / "prelude.lua").read_text() + (folder / f"{name}.lua").read_text()


class RunScripts:
    """Calls scripts on one run. UnavailableError when Redis cannot serve."""

    def __init__(self, redis: Redis, keys: RunKeys, *, retention_s: int, now: Now) -> None:
        self._redis = redis
        self._keys = keys
        self._retention_s = retention_s
        self._now = now
        self._scripts: dict[str, Any] = {}

    async def call(self, name: str, *args: str | bytes | float) -> Any:
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self._redis.register_script(_source(name))
        wall = datetime.fromtimestamp(self._now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        shared = (self._keys.job_prefix, self._keys.job_id(""), self._retention_s, wall)
        with redis_errors():
            return await script(keys=list(self._keys.of_the_run), args=[*shared, *args])
