"""The limiter of a process against real servers: its waiters, its grants, and what it does when Redis plays up."""

import asyncio
import contextlib
import itertools
import shutil
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis

from queue_eval.core.limits import NO_CHARGE, Charge, Counting, InFlight, Lane, Limits
from queue_eval.limiter.keys import LimiterKeys
from queue_eval.limiter.shared import SharedLimiter
from queue_eval.limiter.sync_script import SyncReply, SyncRequest
from queue_eval.limiter.view import LimiterView
from queue_eval.limiter.wakes import Wakes
from queue_eval.ports.limiter import Permit
from testkit.redis_server import Server
from testkit.waiting import eventually

_keys = itertools.count()
_tokens = itertools.count()


def lane(
    *, name: str = "r", weight: float = 1.0, window_s: float = 1.0, burst: float | None = None, **per_s: float
) -> Lane:
    """Limits given per second."""
    limits = Limits(**{dimension: 60 * limit for dimension, limit in per_s.items()})
    return Lane(
        name=name, weight=weight, limits=limits, counting=Counting(window="bucket", window_s=window_s, burst=burst)
    )


class Cluster:
    """Limiters of different processes, as far as Redis knows, on one key."""

    def __init__(self, server: Server) -> None:
        self.redis = Redis.from_url(server.url)
        self.key = f"test-{next(_keys)}"
        self.made: list[SharedLimiter] = []

    def process(self, process: str, runs: Lane, *, adjusts: bool = True) -> SharedLimiter:
        limiter = SharedLimiter(
            self.redis, key=self.key, process=process, lane=runs, adjusts=adjusts, now=time.time, new_token=lambda: f"{next(_tokens)}"
        )  # fmt: skip
        self.made.append(limiter)
        return limiter

    @property
    def view(self) -> LimiterView:
        return LimiterView(self.redis, key=self.key)

    async def close(self) -> None:
        for limiter in self.made:
            await limiter.close()
        await self.redis.aclose()


@pytest.fixture
async def cluster(redis_server: Server) -> AsyncIterator[Cluster]:
    made = Cluster(redis_server)
    yield made
    await made.close()


@pytest.fixture
async def own_cluster(own_redis: Server) -> AsyncIterator[Cluster]:
    made = Cluster(own_redis)
    yield made
    await made.close()


async def test_the_emulation_serves_one_process() -> None:
    from queue_eval.local.find_redis import emulation

    async with emulation() as redis:
        limiter = SharedLimiter(
            redis, key="k", process="p", lane=lane(requests=100), adjusts=True, now=time.time, new_token=lambda: "t"
        )
        for _ in range(3):
            limiter.settle(await limiter.acquire(Charge()), Charge())
        await limiter.close()


async def held_up(*limiters: SharedLimiter, within_s: float = 0.3) -> int:
    """How many of these get a permit in that time; the others are cancelled."""
    tasks = [asyncio.create_task(limiter.acquire(Charge())) for limiter in limiters]
    done, pending = await asyncio.wait(tasks, timeout=within_s)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    return len(done)


async def test_all_processes_together_stay_within_the_bucket(cluster: Cluster) -> None:
    limiters = [cluster.process(f"p{n}", lane(requests=100, burst=10)) for n in range(4)]
    started = time.monotonic()
    await asyncio.gather(*(limiter.acquire(Charge()) for limiter in limiters for _ in range(15)))
    # 60 permits from an empty bucket of at most 10 at 100/s
    assert time.monotonic() - started >= 0.49
    stats = await cluster.view.stats()
    assert stats
    assert (stats.released, stats.waiting, stats.processes) == (60, 0, 4)


async def test_a_call_does_not_wait_while_settlements_are_gathered(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A case's next call follows at the heels of its last one's settlement."""
    monkeypatch.setattr("queue_eval.limiter.synchronizer.GATHER_S", 60.0)
    limiter = cluster.process("p", lane(requests=1000))
    permit = await limiter.acquire(Charge())
    limiter.settle(permit, NO_CHARGE)
    await asyncio.sleep(0.05)  # the loop gathers by now
    limiter.settle(await asyncio.wait_for(limiter.acquire(Charge()), timeout=10), NO_CHARGE)


async def test_what_is_given_back_serves_waiting_calls_at_once(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not only when the loop looks next."""
    limiter = cluster.process("p", lane(tokens=10))
    first = await limiter.acquire(Charge(input_tokens=10))
    monkeypatch.setattr("queue_eval.limiter.looks.LOOK_S", 30.0)
    monkeypatch.setattr("queue_eval.limiter.looks.MOST_LOOK_S", 30.0)
    monkeypatch.setattr("queue_eval.limiter.sync_script.LEAST_SLEEP_S", 30.0)
    waiting = asyncio.create_task(limiter.acquire(Charge(input_tokens=10)))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    limiter.settle(first, NO_CHARGE)
    await asyncio.wait_for(waiting, 1)


async def test_a_limit_that_was_damaged_for_a_moment_holds_up_no_call(cluster: Cluster) -> None:
    """Another hand writes one call in 19 years, and the script computes the limit anew within a second."""
    limiter = cluster.process("p", lane(requests=100, burst=1))
    await limiter.acquire(Charge())
    calls = [asyncio.create_task(limiter.acquire(Charge())) for _ in range(200)]
    state = LimiterKeys(cluster.key).state

    async def is_seen() -> bool:
        await cluster.redis.hset(state, "limit_requests", "1e-7")
        reply = limiter._sync.reply
        return reply is not None and reply.limit["requests"] < 1

    await eventually(is_seen, within_s=5)
    async with asyncio.timeout(20):
        await asyncio.gather(*calls)


async def test_the_guard_lets_a_whole_burst_pass(cluster: Cluster) -> None:
    counting = Counting(window="bucket", window_s=1.0, burst=60.0)
    runs = Lane(name="r", weight=1.0, limits=Limits(requests=300), counting=counting)
    limiter = cluster.process("p", runs)
    await limiter.acquire(Charge())
    await asyncio.sleep(0.5)
    assert limiter._guard
    assert limiter._guard.max_rate >= 50
    assert limiter._guard.max_rate / limiter._guard.time_period == pytest.approx(5.0)


async def test_without_limits_everything_passes_and_is_counted(cluster: Cluster) -> None:
    limiter = cluster.process("p", lane())
    await asyncio.wait_for(asyncio.gather(*(limiter.acquire(Charge()) for _ in range(500))), 2)
    stats = await cluster.view.stats()
    assert stats
    assert (stats.released, stats.limits, stats.rate) == (500, Limits(), Limits())


async def test_waiters_are_served_in_their_order_whatever_they_cost(cluster: Cluster) -> None:
    limiter = cluster.process("p", lane(tokens=2000))
    order: list[int] = []

    async def call(n: int, tokens: int) -> None:
        await limiter.acquire(Charge(input_tokens=tokens))
        order.append(n)

    await asyncio.gather(*(call(n, 2400 if n == 3 else 20) for n in range(8)))
    assert order == list(range(8))


async def test_input_and_output_tokens_are_limits_of_their_own(cluster: Cluster) -> None:
    limiter = cluster.process("p", lane(input=100_000, output=100))
    started = time.monotonic()
    for _ in range(3):
        await limiter.acquire(Charge(input_tokens=10, output_tokens=60))
    assert time.monotonic() - started >= 0.6


async def test_a_call_larger_than_the_bucket_runs_and_leaves_debt(cluster: Cluster) -> None:
    limiter = cluster.process("p", lane(tokens=1000))
    await limiter.acquire(Charge(input_tokens=1500))
    started = time.monotonic()
    await limiter.acquire(Charge(input_tokens=10))
    assert time.monotonic() - started >= 0.4


async def test_tokens_that_are_given_back_serve_another_processes_waiter_at_once(cluster: Cluster) -> None:
    one, other = (cluster.process(name, lane(tokens=100)) for name in ("one", "other"))
    permit = await one.acquire(Charge(input_tokens=11_000))  # waits for a full bucket, then leaves a debt of 100 s
    waiter = asyncio.create_task(other.acquire(Charge(input_tokens=50)))
    await asyncio.sleep(0.3)
    assert not waiter.done()
    one.settle(permit, Charge())
    await asyncio.wait_for(waiter, 2)


async def test_a_process_that_sleeps_is_woken_when_another_releases_its_call(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queue_eval.limiter.looks.LOOK_S", 60.0)
    monkeypatch.setattr("queue_eval.limiter.looks.MOST_LOOK_S", 60.0)
    in_flight = InFlight(most=1, timeout_s=60.0)
    one, other = (cluster.process(p, replace(lane(), in_flight=in_flight)) for p in ("p", "q"))
    permits = [await one.acquire(Charge())]
    other._sync._wakes.begin()
    await eventually(lambda: _true(one._sync._wakes.listens and other._sync._wakes.listens))
    for waits, serves in ((other, one), (one, other)):
        waiting = asyncio.create_task(waits.acquire(Charge()))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        serves.settle(permits.pop(), Charge(), answered=True)
        permits.append(await asyncio.wait_for(waiting, 1))


async def test_processes_that_wait_ask_redis_four_times_a_second_and_a_crowd_less_often(own_cluster: Cluster) -> None:
    """Whatever the rate, and whatever becomes of the others' calls."""
    limiters = [own_cluster.process(f"p{n}", lane(requests=0.1)) for n in range(20)]
    waiting = [asyncio.create_task(limiter.acquire(Charge())) for limiter in limiters for _ in range(5)]
    await eventually(lambda: _true(all(limiter._sync._wakes.listens for limiter in limiters)))
    await asyncio.sleep(0.3)
    await own_cluster.redis.config_resetstat()
    since = time.monotonic()
    await asyncio.sleep(2)
    asked = (await own_cluster.redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert asked <= 20 * (4 * (time.monotonic() - since) + 2)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_where_redis_may_not_wake_the_limiter_looks_for_itself(own_cluster: Cluster) -> None:
    await own_cluster.redis.execute_command("ACL", "SETUSER", "default", "resetchannels", "-subscribe", "-publish")  # type: ignore[no-untyped-call]
    one, other = (own_cluster.process(p, lane(requests=20)) for p in ("p", "q"))
    await asyncio.wait_for(asyncio.gather(*(limiter.acquire(Charge()) for limiter in (one, other) * 10)), 5)
    assert not one._sync._wakes.listens
    assert not other._sync._wakes.listens


async def test_a_subscription_that_breaks_is_made_again(own_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queue_eval.limiter.wakes.AGAIN_AFTER_S", 0.05)
    limiter = own_cluster.process("p", lane(requests=100))
    await limiter.acquire(Charge())
    await eventually(lambda: _true(limiter._sync._wakes.listens))

    async def subscriptions() -> set[str]:
        return {client["id"] for client in await own_cluster.redis.client_list(_type="pubsub")}

    async def is_another() -> bool:
        return bool(await subscriptions() - before) and limiter._sync._wakes.listens

    before = await subscriptions()
    await own_cluster.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")  # type: ignore[no-untyped-call]
    await eventually(is_another)


async def test_a_subscription_that_is_silent_is_asked_and_given_up(
    own_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queue_eval.limiter.wakes.SILENT_S", 0.5)
    monkeypatch.setattr("queue_eval.limiter.wakes.AGAIN_AFTER_S", 60.0)
    limiter = own_cluster.process("p", lane(requests=100))
    await limiter.acquire(Charge())
    await eventually(lambda: _true(limiter._sync._wakes.listens))
    await asyncio.sleep(1.6)
    assert limiter._sync._wakes.listens  # its questions are answered
    await own_cluster.redis.execute_command("CLIENT", "PAUSE", "4000", "ALL")  # type: ignore[no-untyped-call]
    await eventually(lambda: _true(not limiter._sync._wakes.listens))


class Deaf:
    """A client that loses a cancellation, as redis-py may where it meets a reply."""

    async def subscribe(self, _channel: str) -> None:
        pass

    async def get_message(self, timeout: float) -> None:  # noqa: ASYNC109 - the client's
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(timeout)

    async def ping(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


async def test_a_subscription_ends_though_its_client_has_lost_the_cancellation() -> None:
    wakes = Wakes(SimpleNamespace(pubsub=Deaf), "channel", lambda: None)  # type: ignore[arg-type]
    wakes.begin()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    wakes.end()
    assert wakes._task
    await asyncio.wait_for(asyncio.wait({wakes._task}), 1)


async def _true(value: bool) -> bool:
    return value


async def test_i4_a_permit_is_settled_once(cluster: Cluster) -> None:
    limiter = cluster.process("p", lane(tokens=100))
    permit = await limiter.acquire(Charge(input_tokens=10_000))
    for _ in range(3):
        limiter.settle(permit, Charge(input_tokens=5_000))
    assert await held_up(limiter) == 0  # half of the debt is left, however often it was settled


async def test_a_refund_of_a_call_that_the_window_has_forgotten_is_no_burst(cluster: Cluster) -> None:
    limiter = cluster.process("p", lane(tokens=100, window_s=0.2))
    permit = await limiter.acquire(Charge(input_tokens=50))
    old = replace(permit, charge=Charge(input_tokens=100_000))
    await asyncio.sleep(0.3)
    limiter.settle(old, Charge())
    taken = [asyncio.create_task(limiter.acquire(Charge(input_tokens=50))) for _ in range(20)]
    done, pending = await asyncio.wait(taken, timeout=0.5)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    assert len(done) <= 4


async def test_i1_the_clocks_of_the_processes_do_not_matter(cluster: Cluster) -> None:
    def limiter(process: str, offset_s: float) -> SharedLimiter:
        made = SharedLimiter(
            cluster.redis, key=cluster.key, process=process, lane=lane(requests=20, burst=2), adjusts=True,
            now=lambda: time.time() + offset_s, new_token=lambda: f"{next(_tokens)}",
        )  # fmt: skip
        cluster.made.append(made)
        return made

    limiters, began_at = [limiter("early", -0.2), limiter("right", 0.0), limiter("late", 0.2)], time.monotonic()
    assert await released_in(limiters, 1.5) > 0
    stats = await cluster.view.stats()
    assert stats
    assert stats.released <= 2 + 20 * (time.monotonic() - began_at)


async def test_a_grant_that_lay_too_long_is_given_back_and_its_waiter_stays(cluster: Cluster) -> None:
    limiter = cluster.process("p", lane(requests=0.01))
    waiter, other = (asyncio.create_task(limiter.acquire(Charge())) for _ in range(2))
    await eventually(lambda: _released(cluster, 0), within_s=2)
    await asyncio.sleep(0.05)
    keys = LimiterKeys(cluster.key)
    # as a release by another leaves it, that this process came to see late
    await cluster.redis.hincrbyfloat(keys.state, "level_requests", -1)
    await cluster.redis.rpush(keys.grants("p.0"), f"1|1|{(time.time() - 0.8) * 1000:.3f}|0.0500")
    await asyncio.sleep(0.3)
    assert not waiter.done()
    # in Redis it stands behind the other, which the loop must look for next
    assert [waiter.ticket for waiter in limiter._sync.waiters] == ["2", "1"]
    stats = await cluster.view.stats()
    assert stats
    assert stats.waiting >= 1
    waiter.cancel()
    other.cancel()


async def test_a_grant_whose_reply_took_too_long_is_given_back_and_the_buckets_learn_of_it(cluster: Cluster) -> None:
    """Redis wrote it in time, and this process stood still."""
    limiter = cluster.process("p", lane(requests=100))
    limiter.settle(await limiter.acquire(Charge()), Charge())  # joins
    inner, held = limiter._sync._script.run, [0.2]

    async def run(request: SyncRequest) -> SyncReply | None:
        reply = await inner(request)
        if reply and reply.grants and held:
            await asyncio.sleep(held.pop())
        return reply

    limiter._sync._script.run = run  # type: ignore[method-assign]
    permit = await limiter.acquire(Charge())
    assert (held, permit.serial) == ([], 3)  # not the second release, which came too late
    limiter.settle(permit, Charge())
    stats = await cluster.view.stats()
    assert stats
    assert stats.jitter_s >= 0.2


async def test_grants_that_lay_too_long_do_not_come_back_as_a_burst(cluster: Cluster) -> None:
    """What a process was given before it stopped for a while: the bucket has filled up again since."""
    limiter = cluster.process("p", lane(requests=0.01))
    waiters = [asyncio.create_task(limiter.acquire(Charge())) for _ in range(6)]
    await eventually(lambda: _released(cluster, 0), within_s=2)
    await asyncio.sleep(0.05)
    at_ms = (time.time() - 0.8) * 1000
    await cluster.redis.rpush(
        LimiterKeys(cluster.key).grants("p.0"), *(f"{n}|{n}|{at_ms:.3f}|0.0500" for n in range(1, 7))
    )
    await asyncio.sleep(0.4)
    # the serials of releases: what is given back is none the less released again
    released = await cluster.redis.hget(LimiterKeys(cluster.key).state, "released")
    assert int(released or 0) <= 1
    for waiter in waiters:
        waiter.cancel()


async def test_a_provider_that_charges_estimates_gets_nothing_given_back_but_unsent_requests(cluster: Cluster) -> None:
    limiter = cluster.process("p", lane(tokens=100), adjusts=False)
    answered, unsent = (
        await limiter.acquire(Charge(input_tokens=60)),
        await limiter.acquire(Charge(input_tokens=11_000)),
    )
    limiter.settle(answered, Charge())
    assert await held_up(limiter) == 0
    limiter.settle(unsent, NO_CHARGE)
    assert await held_up(limiter, within_s=2) == 1


async def test_a_429_pauses_all_waiting_calls(cluster: Cluster) -> None:
    one, other = (cluster.process(name, lane(requests=1000)) for name in ("one", "other"))
    permit = await one.acquire(Charge())
    one.rate_limited(permit, 0.6)
    await asyncio.sleep(0.1)
    assert await held_up(one, other) == 0
    assert await held_up(one, other, within_s=2) == 2
    stats = await cluster.view.stats()
    assert stats
    assert (stats.refused, stats.cuts, stats.pauses) == (1, 1, 1)


@pytest.mark.parametrize("garbage", ["nan", "inf", "-inf", "1e300", "-1e300", "text", "[", ""])
async def test_whatever_another_hand_writes_stops_none_for_long(cluster: Cluster, garbage: str) -> None:
    """In every place that the limiter keeps, with scores and times that never come."""
    keys, redis = LimiterKeys(cluster.key), cluster.redis
    limiter = cluster.process("p", lane(requests=6000))
    limiter.settle(await limiter.acquire(Charge()), Charge())
    state = await redis.hkeys(keys.state)
    await redis.hset(
        keys.state, mapping=dict.fromkeys([*state, "paused_until", "cut_at", "most", "header_requests"], garbage)
    )
    for key, seen in (
        (keys.processes, f"{garbage} 1 0.1 1.0"),
        (keys.shares, "9e15 0.9"),
        (keys.in_flight, "9e15 99999"),
    ):
        await redis.hset(key, mapping={"p": seen, "ghost": seen, "other": garbage})
    await redis.zadd(keys.lanes, {"ghost": "+inf", "other": 9e15})
    for name in ("ghost", "other"):
        await redis.hset(
            keys.lane(name),
            mapping={
                "limit_requests": 0.001,
                "window": "sliding",
                "window_s": 60,
                "burst": 0,
                "most_in_flight": 1,
                "vtime": garbage,
                "weight": garbage,
            },
        )
    await redis.hset(
        keys.lane("r"), mapping={"vtime": garbage, "weight": garbage, "in_requests": garbage, "out_requests": garbage}
    )
    for _ in range(20):
        async with asyncio.timeout(10):
            limiter.settle(await limiter.acquire(Charge()), Charge())
    stats = await cluster.view.stats()
    assert stats
    assert stats.limits.requests == 60 * 6000


@pytest.mark.parametrize(
    ("put", "taken"),
    [
        ({"cut_at": "1"}, ()),
        ({"rate_input": "1"}, ()),
        ({}, ("level_requests",)),
        ({}, ("share_sum",)),
        ({}, ("largest_requests", "largest_before_requests")),
        ({}, ("computed_at",)),
        ({}, ("at",)),
    ],
)
async def test_a_part_of_the_state_that_another_user_changes_stops_no_process(
    cluster: Cluster, put: dict[str, str], taken: tuple[str, ...]
) -> None:
    keys, redis = LimiterKeys(cluster.key), cluster.redis
    limiter = cluster.process("p", lane(requests=6000))
    limiter.settle(await limiter.acquire(Charge()), Charge())
    if put:
        await redis.hset(keys.state, mapping=put)  # type: ignore[arg-type]
    if taken:
        await redis.hdel(keys.state, *taken)
    await redis.rpush(keys.fifo("r"), "garbage", "p.0|9|x|y", "||", "p.0|9|1e999|1")
    await redis.rpush(keys.grants("p.0"), "garbage", "1|x|y|z")
    for _ in range(20):
        async with asyncio.timeout(10):
            limiter.settle(await limiter.acquire(Charge()), Charge())


async def test_a_run_whose_settings_are_gone_from_redis_keeps_its_limit(cluster: Cluster) -> None:
    """As by an eviction, while none of its calls waits."""
    limiter = cluster.process("p", lane(requests=10))
    limiter.settle(await limiter.acquire(Charge()), Charge())
    keys = LimiterKeys(cluster.key)
    await cluster.redis.delete(keys.lane("r"))
    seconds, _ = await cluster.redis.time()

    async def is_computed_anew() -> bool:
        return float(await cluster.redis.hget(keys.state, "computed_at") or 0) > 1000 * (seconds + 2)

    await eventually(is_computed_anew, within_s=10)
    stats = await cluster.view.stats()
    assert stats
    assert stats.limits.requests == 600


async def test_i6_many_429s_at_once_are_one_cut(cluster: Cluster) -> None:
    limiters = [cluster.process(f"p{n}", lane(requests=1000, burst=500)) for n in range(4)]
    permits = [(limiter, await limiter.acquire(Charge())) for limiter in limiters for _ in range(10)]
    for limiter, permit in permits:
        limiter.rate_limited(permit, None)
    await eventually(lambda: _refused(cluster, 40), within_s=5)
    stats = await cluster.view.stats()
    assert stats
    assert stats.cuts == 1
    assert 0.9 <= stats.factor < 1


async def _refused(cluster: Cluster, count: int) -> bool:
    stats = await cluster.view.stats()
    return stats is not None and stats.refused == count


async def test_i7_waiters_queue_again_in_order_when_redis_lost_everything(cluster: Cluster) -> None:
    limiter = cluster.process("p", lane(requests=5, burst=1))
    order: list[int] = []

    async def call(n: int) -> None:
        await limiter.acquire(Charge())
        order.append(n)

    waiting = [asyncio.create_task(call(n)) for n in range(5)]
    await asyncio.sleep(0.1)
    await cluster.redis.flushall()
    await cluster.redis.script_flush()
    await asyncio.wait_for(asyncio.gather(*waiting), 5)
    assert order == list(range(5))


async def test_a_permit_of_a_lost_state_gives_nothing_back(cluster: Cluster) -> None:
    limiter = cluster.process("p", lane(tokens=100))
    permit = await limiter.acquire(Charge(input_tokens=50))
    await cluster.redis.flushall()
    fresh = await limiter.acquire(Charge(input_tokens=11_000))
    assert fresh.generation != permit.generation
    limiter.settle(permit, NO_CHARGE)
    limiter.settle(Permit(charge=Charge(input_tokens=10**6), waited_s=0.0, generation=permit.generation), NO_CHARGE)
    assert await held_up(limiter) == 0


async def test_i10_cancelled_waiters_block_none_and_their_permits_come_back(cluster: Cluster) -> None:
    limiter = cluster.process("p", lane(tokens=1000))
    await limiter.acquire(Charge(input_tokens=900))
    waiting = [asyncio.create_task(limiter.acquire(Charge(input_tokens=900))) for _ in range(10)]
    await asyncio.sleep(0.05)
    for task in waiting[:9]:
        task.cancel()
    started = time.monotonic()
    await asyncio.wait_for(waiting[9], 5)
    assert time.monotonic() - started < 4  # ten would have taken 9 s


async def test_cancelled_when_its_permit_was_granted_already(cluster: Cluster) -> None:
    limiter = cluster.process("p", lane(tokens=100))
    waiter = asyncio.create_task(limiter.acquire(Charge(input_tokens=11_000)))
    await eventually(lambda: _released(cluster, 1), within_s=5)
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    if waiter.cancelled():
        assert await held_up(limiter, within_s=2) == 1


async def _released(cluster: Cluster, count: int) -> bool:
    stats = await cluster.view.stats()
    return stats is not None and stats.released >= count


async def test_two_models_on_one_server_stay_apart(cluster: Cluster, redis_server: Server) -> None:
    other = Cluster(redis_server)
    try:
        blocked, free = cluster.process("p", lane(tokens=10)), other.process("p", lane(tokens=10))
        await blocked.acquire(Charge(input_tokens=11_000))
        assert await held_up(blocked, free, within_s=1) == 1
    finally:
        await other.close()


async def test_the_strictest_of_two_runs_binds_both_and_goes_with_its_run(cluster: Cluster) -> None:
    cluster.process("a", lane(name="a", requests=1000))
    for name, rate in (("a", 1000.0), ("b", 2.0)):
        await cluster.process(name, lane(name=name, requests=rate)).acquire(Charge())
    stats = await cluster.view.stats()
    assert stats
    assert stats.limits.requests == pytest.approx(120)
    assert {seen.run_id: seen.configured.requests for seen in stats.lanes} == {"a": 60_000, "b": 120}


async def test_tuning_binds_calls_that_wait_already_and_stays_when_a_worker_comes_later(cluster: Cluster) -> None:
    slow = lane(requests=0.01)
    limiter = cluster.process("p", slow)
    waiting = asyncio.gather(*(limiter.acquire(Charge()) for _ in range(20)))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await cluster.view.tune(slow, {"requests": 60_000.0, "tokens": 6e6, "weight": 7.0})
    await asyncio.wait_for(waiting, 2)
    await cluster.process("late", slow).acquire(Charge())
    stats = await cluster.view.stats()
    assert stats
    assert (stats.limits, stats.lanes[0].weight) == (Limits(requests=60_000.0, tokens=6e6), 7.0)
    await cluster.view.tune(slow, {"requests": None, "tokens": None})
    await limiter.acquire(Charge())
    stats = await cluster.view.stats()
    assert stats
    assert stats.limits == Limits()


async def test_tuning_a_run_without_a_process_yet_waits_for_its_workers(cluster: Cluster) -> None:
    slow = lane(requests=0.01)
    await cluster.view.tune(slow, {"requests": 60_000.0})
    assert await held_up(*[cluster.process("p", slow)] * 20, within_s=2) == 20


async def test_a_run_that_comes_back_with_other_limits_has_those(cluster: Cluster) -> None:
    await cluster.process("p", lane(requests=1000)).acquire(Charge())
    await cluster.process("q", lane(requests=500)).acquire(Charge())
    stats = await cluster.view.stats()
    assert stats
    assert stats.limits.requests == 30_000


async def test_headers_of_one_process_bind_all(cluster: Cluster) -> None:
    one, other = (cluster.process(name, lane()) for name in ("one", "other"))
    await asyncio.gather(one.acquire(Charge()), other.acquire(Charge()))
    one.observed({"requests": 60.0})
    await eventually(lambda: _limit(cluster, 60.0), within_s=2)
    assert await held_up(*[other] * 20, within_s=0.5) <= 2


async def _limit(cluster: Cluster, requests: float) -> bool:
    stats = await cluster.view.stats()
    return stats is not None and stats.limits.requests == requests


async def test_i8_calls_of_redis_do_not_grow_with_the_number_of_waiters(own_cluster: Cluster) -> None:
    calls = []
    for waiters in (10, 10_000):
        limiter = own_cluster.process(f"p{waiters}", lane(name=f"r{waiters}", requests=10.0))
        tasks = [asyncio.create_task(limiter.acquire(Charge())) for _ in range(waiters)]
        await asyncio.sleep(0.5)
        await own_cluster.redis.config_resetstat()
        await asyncio.sleep(1)
        stats = await own_cluster.redis.info("commandstats")
        calls.append(stats["cmdstat_evalsha"]["calls"])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await limiter.close()
    assert calls[1] <= 2 * calls[0] + 5


async def test_the_timeline_shows_what_happened(own_cluster: Cluster) -> None:
    limiter = own_cluster.process("p", lane(requests=50))
    permit = await limiter.acquire(Charge())
    limiter.rate_limited(permit, 0.1)
    for _ in range(5):
        await limiter.acquire(Charge())

    async def shown() -> bool:
        await limiter.acquire(Charge())
        return sum(slot.released for slot in await own_cluster.view.timeline()) >= 6

    await eventually(shown, within_s=15)
    slots = (
        await own_cluster.view.timeline()
    )  # one; two when the clock was near a slot's end: the other may have no release
    assert (sum(slot.refused for slot in slots), sum(slot.cuts for slot in slots)) == (1, 1)
    assert slots[0].limits == {"requests": 3000}
    assert all(slot.released == slot.lanes.get("r", 0) == slot.used.get("requests", 0) for slot in slots)
    assert sum(slot.paused_s for slot in slots) == pytest.approx(0.1, abs=0.01)


# --- without Redis -----------------------------------------------------------------------------------------------------


async def released_in(limiters: list[SharedLimiter], seconds: float) -> int:
    """Permits that waiters get in that time, however many wait."""
    tasks = [asyncio.create_task(limiter.acquire(Charge())) for limiter in limiters for _ in range(200)]
    done, pending = await asyncio.wait(tasks, timeout=seconds)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    return len(done)


async def test_i9_without_redis_all_together_keep_below_nine_tenths_of_the_rate(
    own_cluster: Cluster, own_redis: Server
) -> None:
    limiters = [own_cluster.process(f"p{n}", lane(requests=100, burst=10)) for n in range(4)]
    until = time.monotonic() + 1.5
    while time.monotonic() < until:  # known to each other for long enough
        await asyncio.gather(*(limiter.acquire(Charge()) for limiter in limiters))
    own_redis.kill()
    started = time.monotonic()
    released = await asyncio.wait_for(released_in(limiters, 4.0), 10)
    # the first second no process goes on alone, then .9 of 100/s, and a quarter of a second may have piled up
    assert 0.5 * 90 * 3 <= released <= 90 * (time.monotonic() - started - 1 + 0.25)
    own_redis.start()
    assert await held_up(*limiters, within_s=5) == 4


async def test_a_process_that_never_reached_redis_releases_nothing(own_cluster: Cluster, own_redis: Server) -> None:
    limiter = own_cluster.process("p", lane(requests=1000))
    own_redis.kill()
    assert await held_up(limiter, within_s=2.5) == 0


async def test_i9_newcomers_get_what_the_others_were_not_promised(own_cluster: Cluster, own_redis: Server) -> None:
    """Redis dies as soon as they have come: what two had to themselves is not theirs to give any more."""
    old = [own_cluster.process(f"old{n}", lane(requests=100, burst=10)) for n in range(2)]
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        await asyncio.gather(*(limiter.acquire(Charge()) for limiter in old))
    fresh = [own_cluster.process(f"new{n}", lane(requests=100, burst=10)) for n in range(6)]
    await asyncio.gather(*(limiter.acquire(Charge()) for limiter in fresh))
    own_redis.kill()
    started = time.monotonic()
    released = await asyncio.wait_for(released_in([*old, *fresh], 4.0), 10)
    assert 0.3 * 90 * 3 <= released <= 90 * (time.monotonic() - started - 1 + 0.1)


async def test_i9_an_answer_that_does_not_come_is_no_outage(own_cluster: Cluster, own_redis: Server) -> None:
    """A server that stands still may go on at any moment, and release what it has promised."""
    limiter = own_cluster.process("p", lane(requests=1000, burst=10))
    for _ in range(10):
        await limiter.acquire(Charge())
    assert own_redis.process
    own_redis.process.send_signal(signal.SIGSTOP)
    try:
        assert await held_up(limiter, within_s=3.0) == 0
    finally:
        own_redis.process.send_signal(signal.SIGCONT)
    assert await held_up(limiter, within_s=8.0) == 1


async def test_a_server_that_comes_back_empty_begins_empty(own_cluster: Cluster, own_redis: Server) -> None:
    limiter = own_cluster.process("p", lane(requests=20, burst=20))
    await limiter.acquire(Charge())
    generation = (await limiter.acquire(Charge())).generation
    own_redis.kill()
    shutil.rmtree(own_redis.folder / "appendonlydir", ignore_errors=True)
    (own_redis.folder / "appendonly.aof").unlink(missing_ok=True)
    own_redis.start()
    started = time.monotonic()
    permits = await asyncio.wait_for(asyncio.gather(*(limiter.acquire(Charge()) for _ in range(10))), 10)
    assert time.monotonic() - started >= 0.45
    assert {permit.generation for permit in permits if permit.generation} != {generation}


async def test_i7_waiters_queue_again_when_the_server_comes_back_with_an_older_state(
    own_cluster: Cluster, own_redis: Server
) -> None:
    limiter = own_cluster.process("p", lane(requests=20, burst=2))
    await limiter.acquire(Charge())
    saved: dict[Any, Any] = {key: await own_cluster.redis.dump(key) for key in await own_cluster.redis.keys("*")}
    waiting = asyncio.gather(*(limiter.acquire(Charge()) for _ in range(20)))
    await asyncio.sleep(0.2)
    await own_cluster.redis.flushall()
    for key, value in saved.items():
        await own_cluster.redis.restore(key, 0, value, replace=True)
    await asyncio.wait_for(waiting, 5)


async def test_a_server_without_memory_is_an_outage_and_fails_none(own_cluster: Cluster) -> None:
    limiter = own_cluster.process("p", lane(requests=20, burst=2))
    await limiter.acquire(Charge())
    await own_cluster.redis.config_set("maxmemory", 1)
    waiting = asyncio.gather(*(limiter.acquire(Charge()) for _ in range(10)))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    await own_cluster.redis.config_set("maxmemory", 0)
    await asyncio.wait_for(waiting, 8)


async def test_a_stopped_server_is_an_outage_and_its_queue_goes_on(own_cluster: Cluster, own_redis: Server) -> None:
    limiter = own_cluster.process("p", lane(requests=20, burst=5))
    await limiter.acquire(Charge())
    assert own_redis.process
    own_redis.process.send_signal(signal.SIGSTOP)
    try:
        waiting = asyncio.gather(*(limiter.acquire(Charge()) for _ in range(10)))
        await asyncio.sleep(1)
        assert not waiting.done()
    finally:
        own_redis.process.send_signal(signal.SIGCONT)
    await asyncio.wait_for(waiting, 5)


async def test_a_blocked_event_loop_is_no_outage(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    limiter = cluster.process("p", lane(requests=200))
    waiting = asyncio.gather(*(limiter.acquire(Charge()) for _ in range(20)))
    await asyncio.sleep(0.02)
    time.sleep(0.6)  # noqa: ASYNC251 - what a heavy import does
    await asyncio.wait_for(waiting, 3)
    assert "limiter without Redis" not in caplog.text


async def test_a_process_that_is_blocked_again_and_again_takes_no_share_of_an_outage(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """It would come on top of what Redis releases to the others: the fault is its own machine's."""
    limiter = cluster.process("p", lane(requests=200))
    send, blocked = limiter._sync._script.run, iter((0.4, 0.7, 1.2))

    async def held_up(request: SyncRequest) -> SyncReply | None:
        if seconds := next(blocked, None):
            time.sleep(seconds)  # noqa: ASYNC251 - as above
            await asyncio.sleep(0.001)  # the timeout comes first
        return await send(request)

    limiter._sync._script.run = held_up  # type: ignore[method-assign]
    await asyncio.wait_for(asyncio.gather(*(limiter.acquire(Charge()) for _ in range(40))), 5)
    assert next(blocked, None) is None
    assert "limiter without Redis" not in caplog.text
