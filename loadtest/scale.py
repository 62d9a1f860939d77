"""What docs/measurements/scale.md reckons with: the limiter's cost as processes join, and the schedule of a thousand workers.

    python -m loadtest.scale

The limiter is the real one, all its processes' parts in this process, on a real Redis; the schedule is simulated by the
worker's own code in virtual time. Writes loadtest/out/scale.json.
"""

import argparse
import asyncio
import json
import logging
import random
import time
from itertools import count
from typing import Any

from redis.asyncio import Redis

from loadtest.ranges import written
from loadtest.shapes import bound_s, guessed, log_normal
from loadtest.skew.simulation import Plan, makespan_s
from queue_eval.core.limits import Charge, Counting, Lane, Limits
from queue_eval.core.settings.workers import WorkerSettings
from queue_eval.limiter.shared import SharedLimiter
from queue_eval.limiter.view import LimiterView
from queue_eval.ports.queue import Entry
from queue_eval.queue.claim import WorkerIdentity
from queue_eval.wiring.queues import RunQueue
from testkit.redis_server import cpu_s, product_server

# processes, and the calls a second that they share; 810: an account's part in docs/measurements/scale.md
LIMITED, TASKS = ((1, 300.0), (10, 300.0), (100, 300.0), (100, 810.0), (1_000, 300.0)), 4
SECONDS, WARM_UP_S = 12.0, 4.0
BEHIND, BEATS = 20_000, 500  # cases that wait, whose keys heartbeats keep from expiring
# workers, and the cases in flight in each; for each of these places CASES
CREWS, CASES, MEAN_S = ((100, 1), (1_000, 1), (100, 20)), 20, 17.28


async def permits(processes: int, per_s: float) -> dict[str, float]:
    """So many processes, each with four calls that wait or run, under one limit."""
    server = product_server()
    async with server as url, Redis.from_url(url, max_connections=2 * processes + 100) as redis:
        serial, view = count(), LimiterView(redis, key="k")
        lane = Lane(name="r", weight=1.0, limits=Limits(requests=60 * per_s), counting=Counting())
        limiters = [
            SharedLimiter(redis, key="k", process=f"p{n}", lane=lane, adjusts=True, now=time.time, new_token=lambda: str(next(serial)))
            for n in range(processes)
        ]  # fmt: skip

        granted = 0

        async def call(limiter: SharedLimiter) -> None:
            nonlocal granted
            while True:
                permit = await limiter.acquire(Charge())
                granted += 1
                await asyncio.sleep(0.05)
                limiter.settle(permit, permit.charge)

        callers = [asyncio.create_task(call(limiter)) for limiter in limiters for _ in range(TASKS)]
        await asyncio.sleep(WARM_UP_S)
        await redis.config_resetstat()
        before_s, before, used, started = await cpu_s(redis), await _released(view), granted, time.monotonic()
        await asyncio.sleep(SECONDS)
        # as Redis released them: what reaches a process too late it gives back, and it is released again
        permits, used_s = await _released(view) - before, await cpu_s(redis) - before_s
        elapsed_s, used = time.monotonic() - started, granted - used
        calls = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        await asyncio.gather(*(limiter.close() for limiter in limiters))
    return {
        "permits_per_s": round(permits / elapsed_s, 1),
        "calls_per_s": round(used / elapsed_s, 1),
        "redis_ms_per_permit": round(1000 * used_s / permits, 3),
        "redis_calls_per_permit": round(calls / permits, 2),
        "redis_cpu_share": round(used_s / elapsed_s, 4),
    }


async def heartbeats(in_flight: int) -> float:
    """Redis's CPU for one heartbeat of a worker with so many cases in flight, in ms."""
    server = product_server()
    async with server as url, Redis.from_url(url) as redis:
        queue = RunQueue.of(redis, "r")
        await queue.enqueueing.open("i")
        cases = [Entry(case_id=f"{n:024x}", payload=b"x" * 900, size_bytes=900, description="") for n in range(BEHIND)]
        await queue.enqueueing.enqueue(cases)
        identity = WorkerIdentity(name="w", hostname="h", pid=1, concurrency=in_flight, born="2026-01-01T00:00:00Z")
        claiming = queue.claiming(identity, WorkerSettings())
        claims = (await claiming.claim(in_flight, used_bytes=0, capacity_bytes=1 << 30)).claims
        before_s = await cpu_s(redis)
        for _ in range(BEATS):
            await claiming.heartbeat(claims, waiting=0)
        return round(1000 * (await cpu_s(redis) - before_s) / BEATS, 3)


async def _released(view: LimiterView) -> int:
    stats = await view.stats()
    return stats.released if stats else 0


def schedule(workers: int, each: int) -> float:
    """Makespan over max(total / places, longest case); log-normal, weights 30 % off."""
    places = workers * each
    chance = random.Random(places)
    spent_s = log_normal(CASES * places, MEAN_S, chance)
    took_s = makespan_s(Plan(spent_s=spent_s, weights=guessed(spent_s, chance), workers=workers, each=each))
    return round(took_s / bound_s(spent_s, places), 4)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    logging.getLogger("queue_eval").setLevel(logging.ERROR)
    figures: dict[str, Any] = {"limiter": [], "schedule": {}, "redis_ms_per_heartbeat": {}}
    for in_flight in (1, 64):
        figures["redis_ms_per_heartbeat"][str(in_flight)] = asyncio.run(heartbeats(in_flight))
    print(json.dumps({"redis_ms_per_heartbeat": figures["redis_ms_per_heartbeat"]}), flush=True)
    for processes, per_s in LIMITED:
        row = {"processes": processes, "limit_per_s": per_s, **asyncio.run(permits(processes, per_s))}
        figures["limiter"].append(row)
        print(json.dumps(row), flush=True)
    for workers, each in CREWS:
        name = f"{workers} x {each}"
        figures["schedule"][name] = schedule(workers, each)
        print(json.dumps({"workers": name, "makespan_over_bound": figures["schedule"][name]}), flush=True)
    written("scale", figures)


if __name__ == "__main__":
    main()
