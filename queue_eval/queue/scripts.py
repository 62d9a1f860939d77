"""The Lua scripts, each called with the run's keys and the arguments that all of them share."""

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from queue_eval.ports.clock import Now
from queue_eval.queue.connection import as_written, redis_errors
from queue_eval.queue.keys import RunKeys

Argument = str | bytes | float


@cache
def _part(name: str) -> str:
    return (files("queue_eval.queue") / "lua" / f"{name}.lua").read_text(encoding="utf-8")


@cache
def _source(clock: str, name: str) -> str:
    return clock + _part("prelude") + _part(name)


@cache
def _sha(source: str) -> str:
    return hashlib.sha1(source.encode()).hexdigest()  # noqa: S324 - Redis names scripts by their SHA-1


def rq_time(now_s: float) -> str:
    """A moment as RQ writes it."""
    return datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(slots=True, eq=False)
class _Call:
    name: str
    arguments: tuple[Argument, ...]
    reply: "asyncio.Future[Any]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long the keys of a run live; kept in the run when it is opened."""

    running_s: int = 14 * 86400  # since a worker last worked on it
    finalized_s: int = 86400


class RunScripts:
    """Calls scripts on one run. UnavailableError when Redis cannot serve.

    Calls that are made while others are on their way go together in one round trip: many cases in flight finish at
    once.
    """

    def __init__(
        self, redis: Redis, keys: RunKeys, *, retention: Retention, now: Now, clock: str | None = None
    ) -> None:
        """`clock`: Lua that stands in for the server's clock, in tests."""
        self._clock = clock or _part("clock")
        self._redis = redis
        self._keys = keys
        self._retention = retention
        self._now = now
        self._waiting: list[_Call] = []
        self._sender: asyncio.Task[None] | None = None

    async def call(self, name: str, *arguments: Argument) -> Any:
        call = _Call(name, arguments, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send(), name="redis-scripts")
        with as_written(self._keys.run_id), redis_errors():
            return await call.reply

    async def _send(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                replies = await self._evaluated(batch)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is every waiting caller's to handle
                replies = [error] * len(batch)
            for call, reply in zip(batch, replies, strict=True):
                if call.reply.done():
                    continue
                if isinstance(reply, Exception):
                    call.reply.set_exception(reply)
                else:
                    call.reply.set_result(reply)

    async def _evaluated(self, batch: list[_Call]) -> list[Any]:
        """Each call's reply, or its exception."""
        wall = rq_time(self._now())
        retention = self._retention
        shared = (self._keys.job_prefix, self._keys.job_id(""), retention.running_s, wall, retention.finalized_s)
        keys = self._keys.of_the_run
        async with self._redis.pipeline(transaction=False) as pipe:
            for call in batch:
                pipe.evalsha(_sha(_source(self._clock, call.name)), len(keys), *keys, *shared, *call.arguments)
            replies: list[Any] = await pipe.execute(raise_on_error=False)
        for index, reply in enumerate(replies):
            if isinstance(reply, NoScriptError):
                # a new or restarted server: with its source, the script is known from now on
                call = batch[index]
                replies[index] = await self._with_source(call, *keys, *shared)
        return replies

    async def _with_source(self, call: _Call, *keys_and_shared: Argument) -> Any:
        try:
            reply: Any = await self._redis.eval(
                _source(self._clock, call.name), len(self._keys.of_the_run), *keys_and_shared, *call.arguments
            )
        except Exception as error:  # noqa: BLE001 - as above
            return error
        return reply
