"""The worker's side of the queue."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from queue_eval import __version__
from queue_eval.core.errors import NoInputError
from queue_eval.core.run import RunState
from queue_eval.ports.clock import Now
from queue_eval.ports.queue import Claim, Claims
from queue_eval.queue.connection import as_written, redis_errors
from queue_eval.queue.keys import RQ_WORKERS, RunKeys
from queue_eval.queue.lua.signatures import ClaimFields, Kind, QueueScripts
from queue_eval.queue.rq_job import EMPTY, unmarked, unpacked
from queue_eval.queue.scripts import rq_time

WORKER_TTL_S = 90
_EXECUTION = re.compile(rb"[\w.-]{1,200}")
FIELDS_PER_CLAIM = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerIdentity:
    """Who claims. The name is new for every process."""

    name: str
    hostname: str
    pid: int
    concurrency: int
    born: str  # ISO 8601


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedging:
    """At the tail, a case that runs so many times its expected duration is dispatched a second time, elsewhere."""

    times: float  # 0: never
    least_s: float


class RedisClaiming:
    def __init__(
        self,
        redis: Redis,
        scripts: QueueScripts,
        keys: RunKeys,
        *,
        worker: WorkerIdentity,
        lease_ms: int,
        hedging: Hedging,
        now: Now,
        max_case_bytes: int,
    ) -> None:
        self._redis = redis
        self._scripts = scripts
        self._keys = keys
        self._worker = worker
        self._lease_ms = lease_ms
        self._hedging = hedging
        self._now = now
        self._max_case_bytes = max_case_bytes
        self._concurrency = worker.concurrency
        self._number = 1  # of the next claim; a claim without a reply is sent again under its number

    async def claim(self, limit: int, *, used_bytes: int, capacity_bytes: int, has_quarantined: bool = False) -> Claims:
        fields = ClaimFields(
            limit=limit,
            used_bytes=used_bytes,
            capacity_bytes=capacity_bytes,
            lease_ms=self._lease_ms,
            worker=self._worker.name,
            number=self._number,
            has_quarantined=has_quarantined,
            hedge_times=self._hedging.times,
            hedge_least_ms=int(self._hedging.least_s * 1000),
        )
        reply = await self._scripts.claim(fields)
        self._number += 1
        state, hold, concurrency = (part.decode() for part in reply[:3])
        if not state:
            raise NoInputError(
                f"run {self._keys.run_id!r}: Redis does not know it;"
                " enqueue it first (queue-eval enqueue), or check the id and --redis"
            )
        rows = (reply[i : i + FIELDS_PER_CLAIM] for i in range(3, len(reply), FIELDS_PER_CLAIM))
        with as_written(self._keys.run_id):
            if concurrency:
                self._concurrency = int(concurrency)
            return Claims(
                state=RunState(state),
                hold=hold or None,
                concurrency=int(concurrency) if concurrency else None,
                claims=tuple(self._claim(row) for row in rows),
            )

    async def repeat_claim(self) -> Claims:
        # the script hands out again what a lost reply held, whatever the limit
        return await self.claim(0, used_bytes=0, capacity_bytes=0, has_quarantined=True)

    def _claim(self, row: list[Any]) -> Claim:
        case_id, execution, delivery, attempt, crashes, size, data = row
        if not _EXECUTION.fullmatch(execution):
            raise ValueError(f"{execution[:80]!a} is no execution")  # it becomes part of an object's name
        try:
            payload, broken = unpacked(data, max_bytes=self._max_case_bytes), None
        except ValueError as error:
            payload, broken = b"", str(error)
        return Claim(
            case_id=case_id.decode(),
            execution=execution.decode(),
            delivery=int(delivery),
            attempt=int(attempt),
            crashes=int(crashes),
            payload=payload,
            size_bytes=int(size),
            broken=broken,
        )

    async def heartbeat(
        self, claims: Sequence[Claim], *, waiting: int, waited_s: Mapping[str, float] | None = None
    ) -> list[Claim]:
        waited_ms = {case_id: int(1000 * seconds) for case_id, seconds in (waited_s or {}).items()}
        held = [(claim.case_id, claim.execution, waited_ms.get(claim.case_id, 0)) for claim in claims]
        reply = await self._scripts.heartbeat(self._lease_ms, self._worker.name, held)
        await self._show(in_flight=len(claims), waiting=waiting)
        lost = {
            (case_id.decode(), execution.decode()) for execution, case_id in zip(reply[::2], reply[1::2], strict=True)
        }
        return [claim for claim in claims if (claim.case_id, claim.execution) in lost]

    async def _show(self, *, in_flight: int, waiting: int) -> None:
        """This worker in RQ's own words, for rq info and dashboards, and in ours for `status`."""
        worker, key = self._worker, self._keys.rq_worker(self._worker.name)
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(
                    key,
                    mapping={
                        "birth": worker.born,
                        "last_heartbeat": rq_time(self._now()),
                        "queues": self._keys.queue,
                        "hostname": worker.hostname,
                        "pid": worker.pid,
                        "version": __version__,
                        "state": "busy" if in_flight else "idle",
                        "concurrency": self._concurrency,
                        "in_flight": in_flight,
                        "waiting": waiting,
                    },
                )
                pipe.expire(key, WORKER_TTL_S)
                pipe.sadd(RQ_WORKERS, key)
                pipe.sadd(self._keys.rq_workers, key)
                await pipe.execute()

    async def finish(self, claim: Claim, *, dead: str | None, counters: dict[str, float]) -> bool:
        reason = "" if dead is None else unmarked(dead[:2000])
        kind: Kind = "scored" if dead is None else "dead"
        return await self._scripts.finish(
            claim.case_id, claim.execution, kind=kind, reason=reason, data=EMPTY, counters=counters
        )

    async def release(self, claim: Claim, *, delay_s: float, consume: bool, counters: dict[str, float]) -> bool:
        delay_ms = int(delay_s * 1000)
        return await self._scripts.release(claim.case_id, claim.execution, delay_ms, counters, consume=consume)

    async def leave(self) -> None:
        key = self._keys.rq_worker(self._worker.name)
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.srem(RQ_WORKERS, key)
                pipe.srem(self._keys.rq_workers, key)
                pipe.delete(key)
                pipe.zrem(self._keys.workers, self._worker.name)
                pipe.hdel(self._keys.claimed, self._worker.name)
                await pipe.execute()
