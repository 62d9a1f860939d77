"""RQ reads what we write: held against the very version that pyproject.toml pins."""

import os
import pickle
import subprocess
import sys
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from rq import Queue, SimpleWorker, Worker
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry, FinishedJobRegistry, ScheduledJobRegistry, StartedJobRegistry

from queue_eval.core.errors import DataError
from queue_eval.core.run import RunState
from queue_eval.core.settings.workers import WorkerSettings
from queue_eval.ports.queue import Claim, Entry
from queue_eval.queue.claim import Hedging, RedisClaiming, WorkerIdentity
from queue_eval.queue.keys import RunKeys
from queue_eval.queue.lua.signatures import QueueScripts
from queue_eval.queue.rq_job import HANDLER, packed, refuse, unpacked
from queue_eval.queue.scripts import Retention
from queue_eval.wiring.queues import RunQueue
from testkit.redis_server import Server
from testkit.waiting import eventually
from tests.contracts.test_queue import entry

QUEUE = "queue-eval-seen"


@pytest.fixture
async def run(redis_server: Server) -> AsyncIterator[tuple[RunQueue, RedisClaiming, Redis]]:
    """Six cases: one ready, delayed, leased, scored and dead each, and one adopted."""
    client = AsyncRedis.from_url(redis_server.url)
    await client.flushall()
    queue = RunQueue.of(client, "seen")
    await queue.enqueueing.open("m")
    await queue.enqueueing.enqueue([entry(c) for c in ("scored", "dead", "delayed", "leased", "ready")])
    await queue.enqueueing.adopt([entry("adopted")], dead=False)
    await queue.enqueueing.seal(6)
    identity = WorkerIdentity(name="w1", hostname="host", pid=7, concurrency=4, born="2026-01-01T00:00:00.000000Z")
    worker = queue.claiming(identity, WorkerSettings(lease_s=30))
    claims = {c.case_id: c for c in (await worker.claim(4, used_bytes=0, capacity_bytes=10_000)).claims}
    await worker.finish(claims["scored"], dead=None, counters={})
    await worker.finish(claims["dead"], dead="it never answered", counters={})
    await worker.release(claims["delayed"], delay_s=60, consume=True, counters={})
    await worker.heartbeat([claims["leased"]], waiting=0)
    sync = Redis.from_url(redis_server.url)
    yield queue, worker, sync
    sync.close()
    await client.aclose()


async def test_every_registry_shows_its_cases(run: tuple[RunQueue, RedisClaiming, Redis]) -> None:
    _, _, redis = run
    queue = Queue(QUEUE, connection=redis, serializer="json")
    assert QUEUE in [q.name for q in Queue.all(connection=redis)]
    assert queue.get_job_ids() == ["queue-eval-seen_ready"]
    # these run RQ's own clean-up, which must not touch what our leases govern
    assert StartedJobRegistry(queue=queue).get_job_ids() == ["queue-eval-seen_leased"]
    assert ScheduledJobRegistry(queue=queue).get_job_ids() == ["queue-eval-seen_delayed"]
    assert set(FinishedJobRegistry(queue=queue).get_job_ids()) == {"queue-eval-seen_scored", "queue-eval-seen_adopted"}
    assert FailedJobRegistry(queue=queue).get_job_ids() == ["queue-eval-seen_dead"]
    assert queue.count == 1
    assert (await run[0].steering.stats()).leased == 1


async def test_jobs_load_with_their_status_and_reason(run: tuple[RunQueue, RedisClaiming, Redis]) -> None:
    _, _, redis = run
    jobs = {
        name: Job.fetch(f"queue-eval-seen_{name}", connection=redis, serializer="json")
        for name in ("ready", "leased", "scored", "dead", "delayed")
    }
    assert {name: job.get_status() for name, job in jobs.items()} == {
        "ready": JobStatus.QUEUED,
        "leased": JobStatus.STARTED,
        "scored": JobStatus.FINISHED,
        "dead": JobStatus.FAILED,
        "delayed": JobStatus.SCHEDULED,
    }
    assert jobs["ready"].func_name == HANDLER
    assert jobs["ready"].args == [{"case": "ready"}]
    assert (jobs["dead"].latest_result(), jobs["dead"]._exc_info) == (None, "it never answered")
    assert jobs["leased"].worker_name == "w1"
    assert jobs["scored"].ended_at is not None


async def test_cases_that_a_stock_rq_worker_has_taken_are_put_back(redis_server: Server) -> None:
    """It fails them all, as it must; what it took is in no list of ours then, and enqueueing again brings it back."""
    redis, client = Redis.from_url(redis_server.url), AsyncRedis.from_url(redis_server.url)
    queue = RunQueue.of(client, "taken")
    await queue.enqueueing.open("m")
    cases = [entry(case_id) for case_id in "abcd"]
    await queue.enqueueing.enqueue(cases)
    await queue.enqueueing.seal(4)
    identity = WorkerIdentity(name="w", hostname="h", pid=1, concurrency=1, born="2026-01-01T00:00:00.000000Z")
    ours = queue.claiming(identity, WorkerSettings())
    (held,) = (await ours.claim(1, used_bytes=0, capacity_bytes=10_000)).claims
    taken = Queue("queue-eval-taken", connection=redis, serializer="json")
    SimpleWorker([taken], connection=redis, serializer="json").work(burst=True)
    stats = await queue.steering.stats()
    assert (stats.ready, stats.leased) == (0, 1)
    # what we hold is not touched, and the others wait again, once
    assert await queue.enqueueing.enqueue(cases) == 3
    assert await queue.enqueueing.enqueue(cases) == 0
    claims = (await ours.claim(10, used_bytes=0, capacity_bytes=10_000)).claims
    assert sorted(claim.case_id for claim in (held, *claims)) == list("abcd")
    assert [claim.broken for claim in claims] == [None] * 3
    for claim in (held, *claims):
        await ours.finish(claim, dead=None, counters={})
    stats = await queue.steering.stats()
    assert (stats.state, stats.scored, stats.dead) == (RunState.DRAINED, 4, 0)
    assert FailedJobRegistry(queue=taken).get_job_ids() == []
    await client.aclose()
    redis.close()


async def test_cases_in_no_list_are_put_back(redis_server: Server) -> None:
    client = AsyncRedis.from_url(redis_server.url)
    queue = RunQueue.of(client, "nowhere")
    await queue.enqueueing.open("m")
    cases = [entry(case_id) for case_id in "ab"]
    await queue.enqueueing.enqueue(cases)
    await queue.enqueueing.seal(2)
    await client.delete(queue.keys.ready)
    assert (await queue.steering.stats()).stalled
    assert await queue.enqueueing.enqueue(cases) == 2
    assert (await queue.steering.stats()).ready == 2
    await client.aclose()


async def test_nothing_that_a_dashboard_shows_can_become_its_markup(redis_server: Server) -> None:
    redis, client = Redis.from_url(redis_server.url), AsyncRedis.from_url(redis_server.url)
    queue = RunQueue.of(client, "shown")
    await queue.enqueueing.open("m")
    entry = Entry(case_id="a", payload=b'{"case": "a"}', size_bytes=10, description="case a from <img src=x>.jsonl:1")
    await queue.enqueueing.enqueue([entry])
    identity = WorkerIdentity(name="w", hostname="h", pid=1, concurrency=1, born="2026-01-01T00:00:00.000000Z")
    claiming = queue.claiming(identity, WorkerSettings())
    (claim,) = (await claiming.claim(1, used_bytes=0, capacity_bytes=10_000)).claims
    await claiming.finish(claim, dead="HTTP 400: <script>alert(1)</script>", counters={})
    job = Job.fetch("queue-eval-shown_a", connection=redis, serializer="json")
    shown = f"{job.description} {job._exc_info}"
    assert "alert(1)" in shown
    assert not set("<>&") & set(shown)
    await client.aclose()
    redis.close()


async def test_rq_sees_the_worker(run: tuple[RunQueue, RedisClaiming, Redis]) -> None:
    _, worker, redis = run
    (seen,) = Worker.all(queue=Queue(QUEUE, connection=redis))
    assert (seen.name, seen.get_state(), seen.hostname, seen.pid) == ("w1", "busy", "host", 7)
    await worker.leave()
    assert Worker.all(queue=Queue(QUEUE, connection=redis)) == []


@pytest.mark.parametrize("aborted", [True, False])
async def test_a_run_that_is_over_leaves_nothing_to_rq(redis_server: Server, aborted: bool) -> None:
    redis, client = Redis.from_url(redis_server.url), AsyncRedis.from_url(redis_server.url)
    run_id = f"over-{aborted}".lower()
    queue = RunQueue.of(client, run_id)
    await queue.enqueueing.open("m")
    await queue.enqueueing.enqueue([entry("a")])
    await queue.enqueueing.seal(1)
    identity = WorkerIdentity(name="w-over", hostname="h", pid=1, concurrency=1, born="2026-01-01T00:00:00.000000Z")
    worker = queue.claiming(identity, WorkerSettings())
    (claim,) = (await worker.claim(1, used_bytes=0, capacity_bytes=10_000)).claims
    await worker.heartbeat([claim], waiting=0)
    assert f"queue-eval-{run_id}" in {known.name for known in Queue.all(connection=redis)}
    # its worker is gone without a word
    if aborted:
        assert await queue.steering.end(RunState.ABORTED) is RunState.ABORTED
    else:
        await worker.finish(claim, dead=None, counters={})
    assert await queue.steering.end(RunState.FINALIZED) is (RunState.ABORTED if aborted else RunState.FINALIZED)
    assert f"queue-eval-{run_id}" not in {known.name for known in Queue.all(connection=redis)}
    assert "w-over" not in {known.name for known in Worker.all(connection=redis)}
    assert all(redis.ttl(key) > 0 for key in redis.scan_iter(f"*{run_id}*")), "what is left goes by itself"
    await client.aclose()
    redis.close()


async def test_rq_requeue_gives_a_dead_case_fresh_attempts(run: tuple[RunQueue, RedisClaiming, Redis]) -> None:
    queue, worker, redis = run
    FailedJobRegistry(queue=Queue(QUEUE, connection=redis, serializer="json")).requeue("queue-eval-seen_dead")
    claims = {c.case_id: c for c in (await worker.claim(9, used_bytes=0, capacity_bytes=10_000)).claims}
    assert claims["dead"].attempt == 1
    stats = await queue.steering.stats()
    assert (stats.dead, stats.leased) == (0, 3)


async def test_what_is_not_dead_in_rqs_registry_hides_none_from_a_retry(
    run: tuple[RunQueue, RedisClaiming, Redis],
) -> None:
    queue, _, redis = run
    registry = FailedJobRegistry(queue=Queue(QUEUE, connection=redis)).key
    redis.zadd(registry, {f"queue-eval-seen_{n}": 0 for n in range(1200)})
    assert await queue.enqueueing.retry_dead() == 1
    assert (await queue.steering.stats()).dead == 0


async def test_an_entry_that_another_hand_wrote_is_not_run(run: tuple[RunQueue, RedisClaiming, Redis]) -> None:
    _, worker, redis = run
    import zlib

    redis.hset("rq:job:queue-eval-seen_ready", "data", zlib.compress(b'["os.system",null,["true"],{}]'))
    (claim,) = (await worker.claim(9, used_bytes=0, capacity_bytes=10_000)).claims
    assert claim.broken is not None
    assert claim.payload == b""


def test_a_stock_worker_is_refused_in_words() -> None:
    with pytest.raises(RuntimeError, match="queue-eval worker"):
        refuse({})


def test_payloads_survive_packing_and_never_unpack_beyond_their_bound() -> None:
    assert unpacked(packed(b'{"a":1}'), max_bytes=100) == b'{"a":1}'
    assert unpacked(packed(b""), max_bytes=100) == b""
    with pytest.raises(ValueError, match="larger"):
        unpacked(packed(b"x" * 10_000), max_bytes=100)
    with pytest.raises(ValueError, match="zlib"):
        unpacked(b"no zlib", max_bytes=100)


async def test_a_reaped_execution_leaves_the_started_registry(redis_server: Server) -> None:
    client = AsyncRedis.from_url(redis_server.url)
    await client.flushall()
    queue = RunQueue.of(client, "seen")
    await queue.enqueueing.open("m")
    await queue.enqueueing.enqueue([entry("a")])
    identity = WorkerIdentity(name="w1", hostname="h", pid=7, concurrency=4, born="2026-01-01T00:00:00.000000Z")
    worker = queue.claiming(identity, WorkerSettings(lease_s=1))
    await worker.claim(1, used_bytes=0, capacity_bytes=1000)

    async def claimed_again() -> bool:
        return bool((await worker.claim(1, used_bytes=0, capacity_bytes=1000)).claims)

    await eventually(claimed_again)
    members: list[Any] = await client.zrange("rq:wip:queue-eval-seen", 0, -1)
    assert [member.decode().split("-")[-2] for member in members] == ["2"]  # the delivery
    await client.aclose()


def skewed(by_s: float) -> float:
    return time.time() + by_s


async def test_i08_workers_whose_clocks_are_wrong_by_an_hour_keep_their_leases(redis_server: Server) -> None:
    redis = AsyncRedis.from_url(redis_server.url)
    keys = RunKeys("skewed")
    sides = {}
    for name, skew_s in (("early", -3600.0), ("right", 0.0), ("late", 3600.0)):
        now = partial(skewed, skew_s)
        scripts = QueueScripts(redis, keys, retention=Retention(running_s=60, finalized_s=60), now=now)
        identity = WorkerIdentity(name=name, hostname="h", pid=1, concurrency=4, born="2026-01-01T00:00:00.000000Z")
        sides[name] = RedisClaiming(
            redis, scripts, keys, worker=identity, lease_ms=1000, hedging=Hedging(times=0, least_s=1), now=now, max_case_bytes=1000
        )  # fmt: skip
    queue = RunQueue.of(redis, "skewed")
    await queue.enqueueing.open("m")
    await queue.enqueueing.enqueue([entry(c) for c in "abc"])
    taken = {n: (await side.claim(1, used_bytes=0, capacity_bytes=99)).claims for n, side in sides.items()}
    assert [len(claims) for claims in taken.values()] == [1, 1, 1]
    for name, side in sides.items():
        assert await side.heartbeat(taken[name], waiting=0) == []
        assert (await side.claim(9, used_bytes=0, capacity_bytes=99)).claims == ()
    assert (await queue.steering.stats()).leased == 3
    # the one whose clock is late dies, and its case comes back all the same
    found: list[str] = []

    async def came_back() -> bool:
        for name in ("early", "right"):
            await sides[name].heartbeat(taken[name], waiting=0)
        found.extend(c.case_id for c in (await sides["right"].claim(9, used_bytes=0, capacity_bytes=99)).claims)
        return bool(found)

    await eventually(came_back, within_s=5)
    assert found == [taken["late"][0].case_id]
    await redis.aclose()


async def test_i20_an_execution_of_before_a_wipe_holds_nothing_afterwards(redis_server: Server) -> None:
    redis = AsyncRedis.from_url(redis_server.url)
    identity = WorkerIdentity(name="w", hostname="h", pid=1, concurrency=4, born="2026-01-01T00:00:00.000000Z")
    claims: list[Claim] = []
    for _ in range(2):
        await redis.flushall()
        queue = RunQueue.of(redis, "wiped")
        await queue.enqueueing.open("m")
        await queue.enqueueing.enqueue([entry("a")])
        worker = queue.claiming(identity, WorkerSettings())
        claims += (await worker.claim(1, used_bytes=0, capacity_bytes=99)).claims
    before, after = claims
    assert (before.case_id, before.delivery) == (after.case_id, after.delivery)
    assert not await worker.finish(before, dead=None, counters={})
    assert await worker.heartbeat([before], waiting=0) == [before]
    assert await worker.finish(after, dead=None, counters={})
    await redis.aclose()


async def test_i10_a_claim_that_the_network_kept_back_leases_nothing(redis_server: Server) -> None:
    """Two copies of a claim were sent, as after a reply that was lost; the second copy arrives when later ones have come."""
    redis = AsyncRedis.from_url(redis_server.url)
    queue = RunQueue.of(redis, "late")
    await queue.enqueueing.open("m")
    identity = WorkerIdentity(name="w", hostname="h", pid=1, concurrency=4, born="2026-01-01T00:00:00.000000Z")
    worker = queue.claiming(identity, WorkerSettings())
    for number in (1, 2):  # neither finds anything
        assert worker._number == number
        assert (await worker.claim(1, used_bytes=0, capacity_bytes=99)).claims == ()
    await queue.enqueueing.enqueue([entry("a")])
    worker._number = 1
    assert (await worker.claim(1, used_bytes=0, capacity_bytes=99)).claims == ()
    worker._number = 3
    assert [claim.case_id for claim in (await worker.claim(1, used_bytes=0, capacity_bytes=99)).claims] == ["a"]
    await redis.aclose()


@pytest.mark.parametrize("field", ["state", "total", "scored", "contact_ms", "concurrency"])
async def test_what_another_hand_wrote_into_a_run_is_reported_in_one_message(
    run: tuple[RunQueue, RedisClaiming, Redis], field: str
) -> None:
    queue, worker, redis = run
    redis.hset(queue.keys.run, field, "no\x1b[31m number")
    printed = []
    for call in (
        queue.steering.stats(),
        worker.claim(4, used_bytes=0, capacity_bytes=9999),
        queue.enqueueing.open("m"),
    ):
        try:
            await call
        except DataError as error:
            printed.append(str(error))
    assert printed
    assert all(text.startswith("run 'seen': Redis holds what queue-eval did not write") for text in printed)
    assert "\x1b" not in "".join(printed)


class _Runs:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_only_a_program_that_unpickles_a_job_of_ours_runs_what_another_hand_put_there(
    own_redis: Server, tmp_path: Path
) -> None:
    """As a holder of our Redis users may put it there."""
    redis, ran = Redis.from_url(own_redis.url), tmp_path / "ran"
    job_id, planted = f"queue-eval-evil_{24 * 'a'}", zlib.compress(pickle.dumps(_Runs(ran)))
    fields: dict[Any, Any] = {"created_at": "2026-01-01T00:00:00Z", "data": planted, "meta": pickle.dumps(_Runs(ran))}
    redis.hset(f"rq:job:{job_id}", mapping=fields)
    redis.rpush("rq:queue:queue-eval-evil", job_id)
    redis.sadd("rq:queues", "rq:queue:queue-eval-evil")
    Queue("of-another", connection=redis).enqueue(time.sleep, 0)
    SimpleWorker([Queue("of-another", connection=redis)], connection=redis).work(burst=True)
    rq = Path(sys.executable).with_name("rq")
    done = subprocess.run(
        [str(rq), "info", "--url", own_redis.url], capture_output=True, text=True, timeout=60, check=True
    )
    assert "queue-eval-evil" in done.stdout
    for queue in Queue.all(connection=redis, serializer="json"):
        with suppress(ValueError, UnicodeError, TypeError):
            _ = [(job.meta, job.args, job.return_value()) for job in queue.jobs]
    assert not ran.exists()
    # what the promise leaves out, so that the above would show
    with suppress(Exception):
        _ = [queue.jobs for queue in Queue.all(connection=redis)]
    assert ran.exists()
    redis.close()
