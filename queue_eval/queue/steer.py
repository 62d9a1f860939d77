"""The view of a run that all processes share, and its brakes."""

from contextlib import suppress

from redis.asyncio import Redis

from queue_eval.core.errors import NoInputError
from queue_eval.core.run import RunState, RunStats, WorkerSeen
from queue_eval.queue.connection import as_written, redis_errors
from queue_eval.queue.keys import RunKeys
from queue_eval.queue.lua.signatures import QueueScripts

MOST = 1e15  # of a count


class RedisSteering:
    def __init__(self, redis: Redis, scripts: QueueScripts, keys: RunKeys) -> None:
        self._redis = redis
        self._scripts = scripts
        self._keys = keys

    async def stats(self) -> RunStats:
        keys = self._keys
        with as_written(keys.run_id), redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hgetall(keys.run)
                pipe.llen(keys.ready)
                pipe.llen(keys.quarantined)
                pipe.zcard(keys.delayed)
                pipe.zcard(keys.leases)
                pipe.zrange(keys.workers, 0, -1, withscores=True)
                pipe.time()
                raw, ready, quarantined, delayed, leased, workers, (seconds, micros) = await pipe.execute()
        if b"state" not in raw:
            raise self._unknown()
        now_s = seconds + micros / 1e6
        with as_written(keys.run_id):
            run = {k.decode(errors="replace"): v.decode(errors="replace") for k, v in raw.items()}
            return RunStats(
                state=RunState(run["state"]),
                total=int(run["total"]) if "total" in run else None,
                ready=ready + quarantined,
                delayed=delayed,
                leased=max(0, leased - int(_number(run.get("hedging", "0")))),
                scored=int(run["scored"]),
                dead=int(run["dead"]),
                executions=int(_number(run["executions"])),
                hold=run.get("hold"),
                counters={k[2:]: _number(v) for k, v in run.items() if k.startswith("n:")},
                workers=await self._workers([(name.decode(), now_s - score / 1000) for name, score in workers]),
                now_s=now_s,
            )

    def _unknown(self) -> NoInputError:
        return NoInputError(f"run {self._keys.run_id!r}: this Redis does not know it; check the run id and --redis")

    async def _workers(self, seen: list[tuple[str, float]]) -> tuple[WorkerSeen, ...]:
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for name, _ in seen:
                    pipe.hmget(self._keys.rq_worker(name), "concurrency", "in_flight", "waiting")
                rows = await pipe.execute()
        workers = []
        for (name, ago), row in zip(seen, rows, strict=True):
            # one that has left between the two looks has no row, and a row may be another hand's
            with suppress(ValueError, TypeError):
                concurrency, in_flight, waiting = map(int, row)
                workers.append(
                    WorkerSeen(name=name, concurrency=concurrency, in_flight=in_flight, waiting=waiting, seen_s_ago=ago)
                )
        return tuple(workers)

    async def hold(self, reason: str | None) -> None:
        if reason is not None:
            await self._scripts.note("hold", reason[:2000])
            return
        with redis_errors():
            await self._redis.hdel(self._keys.run, "hold")

    async def resize(self, concurrency: int) -> None:
        if not await self._scripts.note("concurrency", concurrency):
            raise self._unknown()

    async def elect(self, role: str, ttl_s: float) -> bool:
        with redis_errors():
            return bool(await self._redis.set(self._keys.role(role), "1", nx=True, px=int(ttl_s * 1000)))

    async def end(self, state: RunState) -> RunState:
        stands = (await self._scripts.end(state)).decode()
        if not stands:
            raise self._unknown()
        with as_written(self._keys.run_id):
            return RunState(stands)


def _number(text: str) -> float:
    """Read a count that decides nothing; 0 for what is none of ours. Every Redis user of ours may write it."""
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if abs(number) < MOST else 0.0
