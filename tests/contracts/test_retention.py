"""How long keys live is decided when the run is opened, and all processes keep to it."""

from redis.asyncio import Redis

from queue_eval.config.redis_settings import RedisSettings
from queue_eval.core.run import RunState
from queue_eval.core.settings.workers import WorkerSettings
from queue_eval.queue.claim import WorkerIdentity
from queue_eval.wiring.queues import RunQueue, retention_of
from testkit.redis_server import Server
from tests.contracts.test_queue import entry


async def test_a_runs_own_retention_outlives_workers_and_finalizers_that_do_not_know_it(redis_server: Server) -> None:
    client = Redis.from_url(redis_server.url)
    await client.flushall()
    retention = retention_of(RedisSettings(retention_s=5_000_000, finalized_retention_s=400_000))
    await RunQueue.of(client, "kept", retention).enqueueing.open("m")
    stranger = RunQueue.of(client, "kept")
    await stranger.enqueueing.enqueue([entry("a")])
    await stranger.enqueueing.seal(1)
    identity = WorkerIdentity(name="w", hostname="h", pid=1, concurrency=1, born="2026-01-01T00:00:00.000000Z")
    worker = stranger.claiming(identity, WorkerSettings(lease_s=30))
    (claim,) = (await worker.claim(1, used_bytes=0, capacity_bytes=1000)).claims
    await worker.heartbeat([claim], waiting=0)
    assert await client.ttl("qe:run:kept") > 4_900_000
    assert await client.ttl("rq:job:queue-eval-kept_a") > 4_900_000
    await worker.finish(claim, dead=None, counters={})
    await stranger.steering.end(RunState.FINALIZED)
    assert 390_000 < await client.ttl("qe:run:kept") <= 400_000
    # who comes later does not prolong what may go
    await worker.heartbeat([], waiting=0)
    await stranger.enqueueing.open("m")
    assert await client.ttl("qe:run:kept") <= 400_000
    await client.aclose()


async def test_a_run_outlasts_the_lifetime_of_its_cases(redis_server: Server) -> None:
    """Heartbeats renew every case in turn, wherever it stands, within a quarter of the retention."""
    client = Redis.from_url(redis_server.url)
    await client.flushall()
    run = RunQueue.of(client, "long", retention_of(RedisSettings(retention_s=3600)))
    await run.enqueueing.open("m")
    await run.enqueueing.adopt([entry(f"s{n}") for n in range(300)], dead=False)
    await run.enqueueing.adopt([entry(f"d{n}") for n in range(30)], dead=True)
    await run.enqueueing.enqueue([entry(f"r{n}") for n in range(400)])
    identity = WorkerIdentity(name="w", hostname="h", pid=1, concurrency=1, born="2026-01-01T00:00:00.000000Z")
    lease_s = 12.0
    worker = run.claiming(identity, WorkerSettings(lease_s=lease_s))
    delayed, held = (await worker.claim(2, used_bytes=0, capacity_bytes=1000)).claims
    await worker.release(delayed, delay_s=3000, consume=True, counters={})
    jobs = [key async for key in client.scan_iter("rq:job:queue-eval-long_*")]
    for key in jobs:
        await client.expire(key, 1000)
    for _ in range(int(3600 / 4 / (lease_s / 3))):
        await worker.heartbeat([held], waiting=0)
    assert len(jobs) == 730
    assert min([await client.ttl(key) for key in jobs]) > 3500
    await client.aclose()
