"""Job hashes that Redis has lost, one by one: no process crashes over them, and the run's follower sees that cases are missing."""

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from queue_eval.core.errors import DataError
from queue_eval.core.run import RunState
from queue_eval.core.settings.workers import WorkerSettings
from queue_eval.ports.queue import Claim, Claiming
from queue_eval.queue.claim import WorkerIdentity
from queue_eval.wiring.queues import RunQueue
from testkit.redis_server import Server
from tests.contracts.test_queue import START_MS, TEST_CLOCK, entry

LEASE_S = 12.0
_runs = itertools.count()


@dataclass
class Run:
    redis: Redis
    queue: RunQueue

    def worker(self, name: str) -> Claiming:
        identity = WorkerIdentity(name=name, hostname="h", pid=1, concurrency=4, born="2026-01-01T00:00:00.000000Z")
        return self.queue.claiming(identity, WorkerSettings(lease_s=LEASE_S, straggler_least_s=5))

    async def lose(self, case_id: str) -> None:
        assert await self.redis.delete(f"{self.queue.keys.job_prefix}{case_id}")

    async def pass_time(self, seconds: float) -> None:
        await self.redis.incrby("test:now_ms", int(seconds * 1000))


@pytest.fixture
async def run(redis_server: Server) -> AsyncIterator[Run]:
    redis = Redis.from_url(redis_server.url)
    await redis.set("test:now_ms", START_MS)
    queue = RunQueue.of(redis, f"lost-{next(_runs)}", clock=TEST_CLOCK)
    await queue.enqueueing.open("m")
    await queue.enqueueing.enqueue([entry(case_id) for case_id in "abc"])
    await queue.enqueueing.seal(3)
    yield Run(redis, queue)
    await redis.aclose()


async def taken(worker: Claiming, limit: int = 10) -> tuple[Claim, ...]:
    return (await worker.claim(limit, used_bytes=0, capacity_bytes=10**6)).claims


async def test_a_delayed_case(run: Run) -> None:
    worker = run.worker("w1")
    first, *others = await taken(worker)
    await worker.release(first, delay_s=5, consume=True, counters={})
    await run.lose(first.case_id)
    await run.pass_time(6)
    await worker.heartbeat(others, waiting=0)
    assert await taken(worker) == ()
    for other in others:
        await worker.finish(other, dead=None, counters={})
    stats = await run.queue.steering.stats()
    assert (stats.stalled, stats.scored) == (True, 2)
    await run.queue.enqueueing.enqueue([entry(first.case_id)])
    assert [c.case_id for c in await taken(worker)] == [first.case_id]


async def test_a_leased_case_at_the_tail(run: Run) -> None:
    worker, idle = run.worker("w1"), run.worker("w2")
    first, second, third = await taken(worker)
    await worker.finish(first, dead=None, counters={})
    await run.lose(second.case_id)
    for _ in range(8):
        await run.pass_time(LEASE_S / 3)
        lost = await worker.heartbeat([second, third], waiting=0)
        assert [c.case_id for c in lost] == [second.case_id]
        hedged = await taken(idle)
        if hedged:
            break
    assert [c.case_id for c in hedged] == [third.case_id]


async def test_a_case_with_two_executions(run: Run) -> None:
    worker, other = run.worker("w1"), run.worker("w2")
    first, second, slow = await taken(worker)
    for quick in (first, second):
        await worker.finish(quick, dead=None, counters={})
    hedged: tuple[Claim, ...] = ()
    while not hedged:
        await run.pass_time(LEASE_S / 3)
        await worker.heartbeat([slow], waiting=0)
        hedged = await taken(other)
    await run.lose(slow.case_id)
    for _ in range(5):
        await run.pass_time(LEASE_S / 3)
        await worker.heartbeat([], waiting=0)
        await taken(other)
    stats = await run.queue.steering.stats()
    assert (stats.leased, stats.stalled) == (0, True)


async def test_a_dead_case_that_is_retried(run: Run) -> None:
    worker = run.worker("w1")
    for claim in await taken(worker):
        await worker.finish(claim, dead="reason" if claim.case_id == "a" else None, counters={})
    await run.lose("a")
    assert await run.queue.enqueueing.retry_dead() == 1
    stats = await run.queue.steering.stats()
    assert (stats.state, stats.stalled, stats.scored, stats.dead) == (RunState.SEALED, True, 2, 0)
    await run.queue.enqueueing.enqueue([entry("a")])
    (again,) = await taken(worker)
    await worker.finish(again, dead=None, counters={})
    stats = await run.queue.steering.stats()
    assert (stats.state, stats.scored, stats.dead, stats.ready) == (RunState.DRAINED, 3, 0, 0)


async def test_what_is_enqueued_into_a_drained_run_keeps_its_workers(run: Run) -> None:
    worker = run.worker("w1")
    for claim in await taken(worker):
        await worker.finish(claim, dead=None, counters={})
    await run.redis.delete(f"{run.queue.keys.job_prefix}a", run.queue.keys.finished)
    await run.redis.hincrby(run.queue.keys.run, "scored", -1)
    await run.queue.enqueueing.enqueue([entry("a")])
    assert (await run.queue.steering.stats()).state is RunState.SEALED


async def test_what_another_hand_has_written_is_named_and_no_defect(run: Run) -> None:
    await run.redis.set(run.queue.keys.leases, "a string")
    with pytest.raises(DataError, match="Redis holds what queue-eval did not write"):
        await run.queue.steering.stats()


async def test_a_case_whose_data_is_gone_is_broken_and_no_crash(run: Run) -> None:
    await run.redis.hdel(f"{run.queue.keys.job_prefix}a", "data")
    claims = {claim.case_id: claim.broken for claim in await taken(run.worker("w1"))}
    assert claims == {"a": "Redis has lost the job's data", "b": None, "c": None}
