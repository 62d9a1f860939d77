"""The shared limiter against real servers: order, rate, settlement, pauses, loss of state."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from queue_eval.core.bucket import Bucket
from queue_eval.limiter.shared import UNLIMITED, SharedLimiter, limiter_keys
from tests.support.redis_servers import Server

_keys = itertools.count()
_tokens = itertools.count()

Make = Callable[..., SharedLimiter]


@pytest.fixture
async def make(redis_server: Server) -> AsyncIterator[Make]:
    """Limiters of different processes, as far as Redis can tell, on one key."""
    client = Redis.from_url(redis_server.url)
    key, made = f"test-{next(_keys)}", []

    def one(process: str, *, requests: Bucket = UNLIMITED, tokens: Bucket = UNLIMITED) -> SharedLimiter:
        limiter = SharedLimiter(
            client, key=key, process=process, requests=requests, tokens=tokens, now=time.time, sleep=asyncio.sleep, new_token=lambda: f"g{next(_tokens)}"
        )  # fmt: skip
        made.append(limiter)
        return limiter

    one.client, one.key = client, key  # type: ignore[attr-defined]
    yield one
    for limiter in made:
        await limiter.close()
    await client.aclose()


async def test_all_processes_together_stay_within_the_bucket(make: Make) -> None:
    bucket = Bucket(burst=2, refill_per_s=100)
    limiters = [make(f"p{n}", requests=bucket) for n in range(4)]
    started = time.monotonic()
    released: list[float] = []

    async def call(limiter: SharedLimiter) -> None:
        await limiter.acquire(1)
        released.append(time.monotonic() - started)

    await asyncio.gather(*(call(limiter) for limiter in limiters for _ in range(15)))
    # 60 permits from an empty bucket at 100/s, two of which may come at once
    assert released[-1] >= 0.57
    stats = await limiters[0].stats()
    assert (stats.released, stats.waiting) == (60, 0)


async def test_waiters_are_served_in_their_order_whatever_they_cost(make: Make) -> None:
    limiter = make("p", tokens=Bucket(burst=100, refill_per_s=2000))
    order: list[int] = []

    async def call(n: int, tokens: int) -> None:
        await limiter.acquire(tokens)
        order.append(n)

    await asyncio.gather(*(call(n, 400 if n == 3 else 20) for n in range(8)))
    assert order == list(range(8))


async def test_a_call_larger_than_the_bucket_runs_and_leaves_debt(make: Make) -> None:
    limiter = make("p", tokens=Bucket(burst=100, refill_per_s=1000))
    await limiter.acquire(400)
    started = time.monotonic()
    await limiter.acquire(10)
    assert time.monotonic() - started >= 0.28


async def test_tokens_that_are_given_back_serve_another_processes_waiter_at_once(make: Make) -> None:
    bucket = Bucket(burst=100, refill_per_s=100)
    one, other = make("one", tokens=bucket), make("other", tokens=bucket)
    permit = await one.acquire(11_000)  # waits for a full bucket, then leaves a debt of 100 s
    waiter = asyncio.create_task(other.acquire(500))
    await asyncio.sleep(0.3)
    assert not waiter.done()
    one.settle(permit, 0)
    await asyncio.wait_for(waiter, 2)


async def test_a_429_pauses_everybody_who_waits(make: Make) -> None:
    bucket = Bucket(burst=5, refill_per_s=1000)
    one, other = make("one", requests=bucket), make("other", requests=bucket)
    permit = await one.acquire(1)
    one.rate_limited(permit, 0.5)
    await asyncio.sleep(0.05)
    started = time.monotonic()
    await other.acquire(1)
    assert time.monotonic() - started >= 0.4
    assert (await one.stats()).count_429 == 1


async def test_waiters_queue_again_when_redis_lost_the_state(make: Make) -> None:
    limiter = make("p", requests=Bucket(burst=1, refill_per_s=2))
    waiting = [asyncio.create_task(limiter.acquire(1)) for _ in range(3)]
    await asyncio.sleep(0.1)
    await make.client.delete(*limiter_keys(make.key)[:2])  # type: ignore[attr-defined]
    await asyncio.wait_for(asyncio.gather(*waiting), 5)


async def test_a_cancelled_waiter_blocks_nobody(make: Make) -> None:
    limiter = make("p", requests=Bucket(burst=1, refill_per_s=50))
    waiting = [asyncio.create_task(limiter.acquire(1)) for _ in range(10)]
    await asyncio.sleep(0.05)
    for task in waiting[:5]:
        task.cancel()
    await asyncio.wait_for(asyncio.gather(*waiting[5:]), 5)
