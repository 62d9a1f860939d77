"""Redis, and the queue of one run on it."""

import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from queue_eval.core.naming import checked_run_id
from queue_eval.queue.claim import Hedging, RedisClaiming, WorkerIdentity
from queue_eval.queue.connection import check, connect
from queue_eval.queue.enqueue import RedisEnqueueing
from queue_eval.queue.keys import RunKeys
from queue_eval.queue.lua.signatures import QueueScripts
from queue_eval.queue.scripts import Retention
from queue_eval.queue.steer import RedisSteering
from queue_eval.wiring.stores import build_retrying

PASSWORD_VARIABLE = "QUEUE_EVAL_REDIS_PASSWORD"  # noqa: S105 - the name of a variable
MAX_CASE_BYTES = 64_000_000  # of an entry in Redis once unpacked; the readers' own bound is far below


if TYPE_CHECKING:
    # the commands that look at a run and turn it need no model of eval.yaml, and building it takes as long as they do
    from queue_eval.config.redis_settings import RedisSettings
    from queue_eval.core.settings.workers import WorkerSettings


def redis_client(url: str, environment: Mapping[str, str], *, password_env: str | None = None) -> Redis:
    return connect(url, password=environment.get(password_env or PASSWORD_VARIABLE))


@asynccontextmanager
async def awaited_redis(
    url: str, environment: Mapping[str, str], *, password_env: str | None = None, wait_s: float = 0.0
) -> AsyncIterator[Redis]:
    """Yield a client of a server that answers. `wait_s`: for one that is unavailable.

    UnavailableError or AccessError where it cannot be used.
    """
    async with redis_client(url, environment, password_env=password_env) as client:
        await build_retrying(give_up_after_s=wait_s).call(lambda: check(client, url))
        yield client


def retention_of(settings: "RedisSettings") -> Retention:
    return Retention(running_s=settings.retention_s, finalized_s=settings.finalized_retention_s)


@dataclass(frozen=True, slots=True)
class RunQueue:
    """The queue of one run, from every side but the worker's."""

    redis: Redis
    keys: RunKeys
    scripts: QueueScripts

    @classmethod
    def of(
        cls, redis: Redis, run_id: str, retention: Retention | None = None, *, clock: str | None = None
    ) -> "RunQueue":
        """`retention`: how long the keys of a new run live; an existing run knows it. `clock`: see RunScripts."""
        keys = RunKeys(checked_run_id(run_id))
        return cls(
            redis, keys, QueueScripts(redis, keys, retention=retention or Retention(), now=time.time, clock=clock)
        )

    @property
    def enqueueing(self) -> RedisEnqueueing:
        return RedisEnqueueing(self.scripts, self.keys, new_epoch=lambda: secrets.token_hex(4))

    @property
    def steering(self) -> RedisSteering:
        return RedisSteering(self.redis, self.scripts, self.keys)

    def claiming(self, worker: WorkerIdentity, settings: "WorkerSettings") -> RedisClaiming:
        return RedisClaiming(
            self.redis,
            self.scripts,
            self.keys,
            worker=worker,
            lease_ms=int(settings.lease_s * 1000),
            hedging=Hedging(times=settings.straggler_times, least_s=settings.straggler_least_s),
            now=time.time,
            max_case_bytes=MAX_CASE_BYTES,
        )
