"""How long keys live is told when the run is opened, and everybody keeps to it."""

from redis.asyncio import Redis

from loadtest.redis_server import Server
from queue_eval.config.settings import RedisSettings, WorkerSettings
from queue_eval.queue.claim import WorkerIdentity
from queue_eval.wiring import RunQueue
from tests.contracts.test_queue import entry


async def test_a_runs_own_retention_outlives_workers_and_finalizers_that_do_not_know_it(redis_server: Server) -> None:
    client = Redis.from_url(redis_server.url)
    await client.flushall()
    settings = RedisSettings(retention_s=5_000_000, finalized_retention_s=400_000)
    await RunQueue.of(client, "kept", settings).enqueueing.open("m")
    stranger = RunQueue.of(client, "kept")
    await stranger.enqueueing.enqueue([entry("a")])
    await stranger.enqueueing.seal(1)
    identity = WorkerIdentity(name="w", hostname="h", pid=1, concurrency=1, born="2026-01-01T00:00:00.000000Z")
    worker = stranger.claiming(identity, WorkerSettings(lease_s=30))
    (claim,) = (await worker.claim(1, used_bytes=0, capacity_bytes=1000)).claims
    await worker.heartbeat([claim], waiting=0)
    assert await client.ttl("qe:run:kept") > 4_900_000
    assert await client.ttl("rq:job:kept_a") > 4_900_000
    await worker.finish(claim, dead=None, counters={})
    await stranger.steering.finalized()
    assert 390_000 < await client.ttl("qe:run:kept") <= 400_000
    # who comes later does not prolong what may go
    await worker.heartbeat([], waiting=0)
    await stranger.enqueueing.open("m")
    assert await client.ttl("qe:run:kept") <= 400_000
    await client.aclose()
