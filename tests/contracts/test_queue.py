"""The queue's contract: one suite for the model in memory, the emulation and every real server."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import cache

import pytest
from redis.asyncio import Redis

from queue_eval.core.errors import NoInputError
from queue_eval.core.run import RunState
from queue_eval.core.settings.workers import WorkerSettings
from queue_eval.local.find_redis import emulation
from queue_eval.ports.queue import Claim, Claiming, Claims, Enqueueing, Entry, Steering
from queue_eval.queue.claim import WorkerIdentity
from queue_eval.wiring.queues import RunQueue
from testkit.fakes.clock import FakeClock
from testkit.fakes.memory_queue import MemoryClaiming, MemoryEnqueueing, MemoryRun, MemorySteering
from testkit.must_have import server_binary
from testkit.redis_server import BINARIES, Server

LEASE_S = 12.0
TEST_CLOCK = "local function now_ms() return tonumber(redis.call('GET', 'test:now_ms')) end\n"
START_MS = 1_800_000_000_000
_runs = itertools.count()


@dataclass
class Sides:
    """The three sides of one run, and what differs between the implementations."""

    enqueueing: Enqueueing
    steering: Steering
    worker: Callable[[str], Claiming]
    pass_time: Callable[[float], Awaitable[object]]  # on the queue's own clock


@pytest.fixture(params=["memory", "emulation", *BINARIES])
async def sides(request: pytest.FixtureRequest) -> AsyncIterator[Sides]:
    if request.param == "memory":
        clock = FakeClock()
        run = MemoryRun(now=clock.now)
        yield Sides(
            MemoryEnqueueing(run),
            MemorySteering(run),
            lambda name: MemoryClaiming(run, worker=name, lease_s=LEASE_S),
            clock.sleep,
        )
        return
    server: Server | None = None
    if request.param == "emulation":
        client: Redis = emulation()
    else:
        server = Server(server_binary(request.param)).start()
        client = Redis.from_url(server.url)
    await client.set("test:now_ms", START_MS)
    queue = RunQueue.of(client, f"contract-{next(_runs)}", clock=TEST_CLOCK)

    @cache  # a worker counts its claims
    def worker(name: str) -> Claiming:
        identity = WorkerIdentity(name=name, hostname="h", pid=1, concurrency=4, born="2026-01-01T00:00:00.000000Z")
        return queue.claiming(identity, WorkerSettings(lease_s=LEASE_S))

    yield Sides(queue.enqueueing, queue.steering, worker, lambda s: client.incrby("test:now_ms", int(s * 1000)))
    await client.aclose()
    if server:
        server.close()


def entry(case_id: str, size: int = 10) -> Entry:
    return Entry(case_id=case_id, payload=b'{"case":"%s"}' % case_id.encode(), size_bytes=size, description=case_id)


async def open_run(sides: Sides, *case_ids: str, seal: bool = True) -> Claiming:
    await sides.enqueueing.open("manifest-1")
    await sides.enqueueing.enqueue([entry(c) for c in case_ids])
    if seal:
        await sides.enqueueing.seal(len(case_ids))
    return sides.worker("w1")


async def claim(worker: Claiming, limit: int = 10) -> Claims:
    return await worker.claim(limit, used_bytes=0, capacity_bytes=1000)


async def claim_after(sides: Sides, worker: Claiming, seconds: float) -> tuple[Claim, ...]:
    """What the worker gets within these seconds on the queue's own clock. It looks now and then, as workers do."""
    found: list[Claim] = []
    while seconds > 0:
        step_s = min(seconds, LEASE_S / 3)
        await sides.pass_time(step_s)
        found.extend((await claim(worker)).claims)
        seconds -= step_s
    return tuple(found)


async def states(sides: Sides) -> tuple[int, int, int, int, int]:
    s = await sides.steering.stats()
    return s.ready, s.delayed, s.leased, s.scored, s.dead


async def test_an_unknown_run_is_reported_as_unknown(sides: Sides) -> None:
    with pytest.raises(NoInputError):
        await sides.steering.stats()
    with pytest.raises(NoInputError):
        await claim(sides.worker("w1"))


async def test_opening_again_returns_which_manifest_stands(sides: Sides) -> None:
    assert await sides.enqueueing.open("manifest-1") == ("manifest-1", RunState.OPEN)
    assert await sides.enqueueing.open("manifest-2") == ("manifest-1", RunState.OPEN)


async def test_cases_come_in_the_order_of_enqueueing_with_their_payload(sides: Sides) -> None:
    worker = await open_run(sides, "a", "b", "c")
    claims = (await claim(worker, 2)).claims
    assert [c.case_id for c in claims] == ["a", "b"]
    assert claims[0].payload == b'{"case":"a"}'
    assert (claims[0].delivery, claims[0].attempt) == (1, 1)
    assert await states(sides) == (1, 0, 2, 0, 0)


async def test_i09_enqueueing_again_adds_nothing_whatever_the_case_went_through(sides: Sides) -> None:
    worker = await open_run(sides, "a", "b", seal=False)
    first = (await claim(worker, 1)).claims[0]
    await worker.finish(first, dead=None, counters={})
    assert await sides.enqueueing.enqueue([entry("a"), entry("b"), entry("c")]) == 1
    assert await states(sides) == (2, 0, 0, 1, 0)


async def test_i06_the_last_finish_drains_a_sealed_run(sides: Sides) -> None:
    worker = await open_run(sides, "a", "b")
    one, two = (await claim(worker)).claims
    assert await worker.finish(one, dead=None, counters={})
    assert (await sides.steering.stats()).state is RunState.SEALED
    assert await worker.finish(two, dead="reason", counters={})
    stats = await sides.steering.stats()
    assert (stats.state, stats.scored, stats.dead) == (RunState.DRAINED, 1, 1)


async def test_i06_an_empty_queue_is_not_a_drained_run(sides: Sides) -> None:
    worker = await open_run(sides, "a", seal=False)
    (held,) = (await claim(worker)).claims
    assert (await claim(sides.worker("w2"))).state is RunState.OPEN
    await worker.finish(held, dead=None, counters={})
    assert (await sides.steering.stats()).state is RunState.OPEN
    assert await sides.enqueueing.seal(1) is RunState.DRAINED


async def test_i10_a_finish_may_be_sent_again(sides: Sides) -> None:
    worker = await open_run(sides, "a", "b")
    one, _ = (await claim(worker)).claims
    assert await worker.finish(one, dead=None, counters={"judge_calls": 3.0})
    assert await worker.finish(one, dead=None, counters={"judge_calls": 3.0})
    stats = await sides.steering.stats()
    assert stats.scored == 1
    assert stats.counters["judge_calls"] == 3


async def test_i04_a_lease_that_ends_returns_the_case_and_counts_its_delivery(sides: Sides) -> None:
    worker = await open_run(sides, "a")
    await claim(worker)
    (again,) = await claim_after(sides, sides.worker("w2"), LEASE_S)
    assert (again.case_id, again.delivery, again.attempt, again.crashes) == ("a", 2, 1, 1)


async def test_i02_i03_a_stale_execution_changes_nothing(sides: Sides) -> None:
    worker = await open_run(sides, "a")
    (stale,) = (await claim(worker)).claims
    other = sides.worker("w2")
    (again,) = await claim_after(sides, other, LEASE_S)
    assert not await worker.finish(stale, dead=None, counters={"judge_calls": 1.0})
    assert not await worker.finish(stale, dead="reason", counters={})
    assert not await worker.release(stale, delay_s=0, consume=True, counters={})
    assert await worker.heartbeat([stale], waiting=0) == [stale]
    stats = await sides.steering.stats()
    assert (stats.scored, stats.dead, stats.counters.get("judge_calls")) == (0, 0, None)
    assert await other.finish(again, dead=None, counters={})


async def test_i16_a_heartbeat_keeps_the_lease(sides: Sides) -> None:
    worker = await open_run(sides, "a")
    (held,) = (await claim(worker)).claims
    for _ in range(12):
        await sides.pass_time(LEASE_S / 3)
        assert await worker.heartbeat([held], waiting=2) == []
        assert (await claim(sides.worker("w2"))).claims == ()
    assert await worker.finish(held, dead=None, counters={})


async def test_a_heartbeat_that_its_own_finish_has_overtaken_loses_nothing(sides: Sides) -> None:
    worker = await open_run(sides, "a", "b")
    finished, released = (await claim(worker)).claims
    assert await worker.finish(finished, dead=None, counters={})
    assert await worker.release(released, delay_s=0, consume=False, counters={})
    assert await worker.heartbeat([finished, released], waiting=0) == []


async def test_no_worker_claims_from_an_aborted_run(sides: Sides) -> None:
    worker = await open_run(sides, "a", "b")
    (held,) = (await claim(worker, 1)).claims
    assert await sides.steering.end(RunState.ABORTED) is RunState.ABORTED
    late = await claim(worker)
    assert (late.state, late.claims) == (RunState.ABORTED, ())
    assert await worker.release(held, delay_s=0, consume=False, counters={})
    assert await sides.enqueueing.seal(2) is RunState.ABORTED
    assert await sides.steering.end(RunState.FINALIZED) is RunState.ABORTED
    assert await states(sides) == (2, 0, 0, 0, 0)


async def test_a_run_that_is_over_cannot_be_aborted(sides: Sides) -> None:
    worker = await open_run(sides, "a")
    (held,) = (await claim(worker)).claims
    assert await worker.finish(held, dead=None, counters={})
    assert await sides.steering.end(RunState.ABORTED) is RunState.DRAINED


async def test_a_release_without_consumption_gives_the_attempt_back(sides: Sides) -> None:
    worker = await open_run(sides, "a", "b")
    first = (await claim(worker, 1)).claims[0]
    assert await worker.release(first, delay_s=0, consume=False, counters={})
    again = (await claim(worker, 1)).claims[0]
    assert (again.case_id, again.delivery, again.attempt) == ("a", 2, 1)


async def test_i22_a_delayed_case_waits_and_then_goes_first(sides: Sides) -> None:
    worker = await open_run(sides, "a", "b", "c")
    first = (await claim(worker, 1)).claims[0]
    assert await worker.release(first, delay_s=0.2, consume=True, counters={"retries": 1.0})
    assert await states(sides) == (2, 1, 0, 0, 0)
    assert (await claim(worker, 1)).claims[0].case_id == "b"
    assert [c.case_id for c in await claim_after(sides, worker, 0.2)] == ["a", "c"]
    assert (await sides.steering.stats()).counters["retries"] == 1


async def test_i17_after_a_silence_of_all_a_worker_that_comes_back_keeps_its_lease(sides: Sides) -> None:
    """Redis was away: no worker crashed."""
    worker, other = await open_run(sides, "a"), sides.worker("w2")
    (held,) = (await claim(worker)).claims
    await sides.pass_time(3 * LEASE_S)
    assert (await claim(other)).claims == ()
    await sides.pass_time(LEASE_S / 3)
    assert await worker.heartbeat([held], waiting=0) == []
    assert await claim_after(sides, other, LEASE_S / 3) == ()
    assert await worker.finish(held, dead=None, counters={})


async def test_i17_after_a_silence_of_all_the_dead_lose_their_leases(sides: Sides) -> None:
    worker = await open_run(sides, "a")
    await claim(worker)
    await sides.pass_time(3 * LEASE_S)
    assert (await claim(sides.worker("w2"))).claims == ()
    (again,) = await claim_after(sides, sides.worker("w2"), LEASE_S)
    assert again.crashes == 1


async def crashed(sides: Sides, name: str, times: int) -> None:
    """A worker takes all there is and dies, so many times."""
    for n in range(times):
        watcher = sides.worker(f"{name}-watcher")
        assert await claim_after(sides, sides.worker(f"{name}-{n}"), 0.001)
        for _ in range(3):
            await sides.pass_time(LEASE_S / 3)
            await watcher.claim(0, used_bytes=0, capacity_bytes=0)


async def test_i04_a_case_that_has_crashed_twice_is_handed_out_apart_from_others_like_it(sides: Sides) -> None:
    await open_run(sides, "a", "b", "c")
    await crashed(sides, "w", 2)
    worker, other = sides.worker("w1"), sides.worker("w2")
    (first,) = (await claim(worker)).claims
    assert (first.crashes, first.delivery) == (2, 3)
    assert (await worker.claim(9, used_bytes=0, capacity_bytes=1000, has_quarantined=True)).claims == ()
    assert len((await claim(other)).claims) == 1
    assert await states(sides) == (1, 0, 2, 0, 0)
    # given back, it is as suspicious as before
    assert await worker.release(first, delay_s=0, consume=False, counters={})
    assert await states(sides) == (2, 0, 1, 0, 0)
    assert len((await claim(worker)).claims) == 1


async def holding_the_last(sides: Sides) -> tuple[Claiming, Claim]:
    """Return a worker that has finished one case in two seconds, and the other case, which it still holds."""
    worker = await open_run(sides, "quick", "slow")
    quick, slow = (await claim(worker)).claims
    await sides.pass_time(2)
    assert await worker.finish(quick, dead=None, counters={})
    return worker, slow


async def straggling(sides: Sides) -> tuple[Claiming, Claiming, Claim, Claim]:
    """Two workers, each with an execution of the case that takes too long."""
    (worker, slow), other = await holding_the_last(sides), sides.worker("w2")
    for _ in range(8):
        assert (await claim(other)).claims == ()
        await sides.pass_time(LEASE_S / 3)
        assert await worker.heartbeat([slow], waiting=0) == []
    (second,) = (await claim(other)).claims
    assert (second.case_id, second.delivery, second.attempt) == ("slow", 2, 1)
    assert second.execution != slow.execution
    assert await states(sides) == (0, 0, 1, 1, 0)
    return worker, other, slow, second


async def test_i21_what_waits_for_the_limiter_is_no_straggler(sides: Sides) -> None:
    """A second execution would wait there too. What it takes beside waiting counts, of the quick case as well."""
    worker, other = await open_run(sides, "quick", "slow", "stuck"), sides.worker("w2")
    quick, slow, stuck = (await claim(worker)).claims
    waited_s = 0.0
    for _ in range(30):
        await sides.pass_time(LEASE_S / 3)
        waited_s += LEASE_S / 3
        waits = {claim.case_id: waited_s for claim in (quick, slow)}
        assert await worker.heartbeat([quick, slow, stuck], waiting=2, waited_s=waits) == []
    await sides.pass_time(2)
    assert await worker.finish(quick, dead=None, counters={})
    (second,) = (await claim(other)).claims
    assert second.case_id == "stuck"
    for _ in range(8):
        assert (await claim(other)).claims == ()
        await sides.pass_time(LEASE_S / 3)
        assert await worker.heartbeat([slow, stuck], waiting=0, waited_s={slow.case_id: waited_s}) == []
        assert await other.heartbeat([second], waiting=0) == []
    assert [c.case_id for c in (await claim(other)).claims] == ["slow"]


async def test_i21_where_no_case_straggles_no_worker_looks_again_for_a_second(sides: Sides) -> None:
    """So that a thousand idle workers cost Redis no more than one. One that may not take a case stops no other."""
    (worker, slow), other = await holding_the_last(sides), sides.worker("w2")
    for _ in range(6):
        await sides.pass_time(LEASE_S / 3)
        assert await worker.heartbeat([slow], waiting=0) == []
    await sides.pass_time(29.5 - 2 - 6 * LEASE_S / 3)
    assert (await claim(other)).claims == ()  # just before the case straggles
    await sides.pass_time(0.9)
    assert (await claim(other)).claims == ()
    await sides.pass_time(0.2)
    assert (await claim(worker)).claims == ()
    assert [c.case_id for c in (await claim(other)).claims] == ["slow"]


async def test_i21_a_straggler_goes_to_another_worker(sides: Sides) -> None:
    """Whatever holds its own worker up would hold it up again."""
    worker, slow = await holding_the_last(sides)
    for _ in range(12):
        await sides.pass_time(LEASE_S / 3)
        assert await worker.heartbeat([slow], waiting=0) == []
        assert (await claim(worker)).claims == ()
    assert [c.case_id for c in (await claim(sides.worker("w2"))).claims] == ["slow"]


async def test_i21_a_straggler_is_dispatched_once_more_and_the_first_result_counts(sides: Sides) -> None:
    worker, other, slow, second = await straggling(sides)
    assert (await claim(sides.worker("w3"))).claims == ()
    assert await worker.heartbeat([slow], waiting=0) == await other.heartbeat([second], waiting=0) == []
    assert await other.finish(second, dead=None, counters={})
    assert not await worker.finish(slow, dead=None, counters={})
    assert await other.finish(second, dead=None, counters={})
    assert await worker.heartbeat([slow], waiting=0) == [slow]
    assert await states(sides) == (0, 0, 0, 2, 0)
    assert (await sides.steering.stats()).state is RunState.DRAINED


async def test_i21_the_first_execution_of_a_straggler_may_win_too(sides: Sides) -> None:
    worker, other, slow, second = await straggling(sides)
    assert await worker.finish(slow, dead=None, counters={})
    assert not await other.finish(second, dead=None, counters={})
    assert await states(sides) == (0, 0, 0, 2, 0)


async def test_i21_while_one_execution_of_a_straggler_goes_on_the_others_end_is_none_for_the_case(sides: Sides) -> None:
    worker, other, slow, second = await straggling(sides)
    assert not await worker.finish(slow, dead="out of attempts", counters={})
    assert await states(sides) == (0, 0, 1, 1, 0)
    assert await worker.heartbeat([slow], waiting=0) == [slow]
    assert await other.release(second, delay_s=0, consume=True, counters={})
    assert await states(sides) == (1, 0, 0, 1, 0)


async def test_i21_an_execution_of_a_straggler_whose_worker_dies_leaves_it_to_the_other(sides: Sides) -> None:
    _, other, slow, second = await straggling(sides)
    for _ in range(4):
        await sides.pass_time(LEASE_S / 3)
        assert await other.heartbeat([second], waiting=0) == []
        assert (await claim(sides.worker("w3"))).claims == ()
    assert await sides.worker("w1").heartbeat([slow], waiting=0) == [slow]
    assert await other.finish(second, dead=None, counters={})
    assert await states(sides) == (0, 0, 0, 2, 0)


async def test_bytes_in_flight_are_bounded_and_a_giant_runs_alone(sides: Sides) -> None:
    await sides.enqueueing.open("m")
    await sides.enqueueing.enqueue([entry("a", 600), entry("b", 600), entry("giant", 5000)])
    worker = sides.worker("w1")
    assert [c.case_id for c in (await worker.claim(9, used_bytes=0, capacity_bytes=1000)).claims] == ["a"]
    assert (await worker.claim(9, used_bytes=600, capacity_bytes=1000)).claims == ()
    assert [c.case_id for c in (await worker.claim(9, used_bytes=0, capacity_bytes=1000)).claims] == ["b"]
    (giant,) = (await worker.claim(9, used_bytes=0, capacity_bytes=1000)).claims
    assert (giant.case_id, giant.size_bytes) == ("giant", 5000)


async def test_a_hold_stops_claims_and_nothing_else(sides: Sides) -> None:
    worker = await open_run(sides, "a", "b")
    held = (await claim(worker, 1)).claims[0]
    await sides.steering.hold("judge: bad key")
    claims = await claim(worker)
    assert (claims.claims, claims.hold) == ((), "judge: bad key")
    assert await worker.finish(held, dead=None, counters={})
    await sides.steering.hold(None)
    assert [c.case_id for c in (await claim(worker)).claims] == ["b"]


async def test_a_heartbeat_to_a_run_that_was_wiped_makes_nothing(sides: Sides) -> None:
    worker = sides.worker("w1")
    await worker.heartbeat([], waiting=0)
    with pytest.raises(NoInputError):
        await sides.steering.stats()


async def test_a_hold_of_an_unknown_run_makes_nothing(sides: Sides) -> None:
    await sides.steering.hold("judge: late")
    assert (await sides.enqueueing.open("manifest-1"))[0] == "manifest-1"


async def test_one_of_many_is_elected(sides: Sides) -> None:
    await open_run(sides, "a")
    assert [await sides.steering.elect("prober", 60) for _ in range(3)] == [True, False, False]


async def test_stored_outcomes_are_adopted_once(sides: Sides) -> None:
    await sides.enqueueing.open("m")
    assert await sides.enqueueing.adopt([entry("a"), entry("b")], dead=False) == 2
    assert await sides.enqueueing.adopt([entry("a"), entry("b")], dead=False) == 0
    assert await sides.enqueueing.adopt([entry("c")], dead=True) == 1
    assert await sides.enqueueing.enqueue([entry("a"), entry("c")]) == 0
    assert await sides.enqueueing.seal(3) is RunState.DRAINED
    assert await states(sides) == (0, 0, 0, 2, 1)


async def test_i06_adopting_the_last_case_drains_the_run(sides: Sides) -> None:
    await sides.enqueueing.open("m")
    assert await sides.enqueueing.seal(1) is RunState.SEALED
    assert await sides.enqueueing.adopt([entry("a")], dead=False) == 1
    assert (await sides.steering.stats()).state is RunState.DRAINED


async def test_retrying_the_dead_opens_a_finished_run_for_them(sides: Sides) -> None:
    worker = await open_run(sides, "a", "b")
    one, two = (await claim(worker)).claims
    await worker.finish(one, dead=None, counters={})
    await worker.finish(two, dead="reason", counters={})
    await sides.steering.end(RunState.FINALIZED)
    assert (await sides.steering.stats()).state is RunState.FINALIZED
    assert await sides.enqueueing.retry_dead() == 1
    (again,) = (await claim(worker)).claims
    assert (again.case_id, again.attempt, again.delivery) == ("b", 1, 2)
    assert again.payload == b'{"case":"b"}'
    await worker.finish(again, dead=None, counters={})
    stats = await sides.steering.stats()
    assert (stats.state, stats.scored, stats.dead) == (RunState.DRAINED, 2, 0)


async def test_scored_cases_are_opened_again_with_their_payload_and_fresh_attempts(sides: Sides) -> None:
    worker = await open_run(sides, "a", "b", "c")
    one, two, three = (await claim(worker)).claims
    await worker.finish(one, dead=None, counters={})
    await worker.finish(two, dead="reason", counters={})
    # under way, dead and unknown cases stay as they are
    assert await sides.enqueueing.reopen([entry("b"), entry("c"), entry("unknown")]) == 0
    await worker.finish(three, dead=None, counters={})
    await sides.steering.end(RunState.FINALIZED)
    assert await sides.enqueueing.reopen([entry("a"), entry("b")]) == 1
    assert await sides.enqueueing.reopen([entry("a"), entry("b")]) == 0
    stats = await sides.steering.stats()
    assert (stats.state, stats.ready, stats.scored, stats.dead) == (RunState.SEALED, 1, 1, 1)
    (again,) = (await claim(worker)).claims
    assert (again.case_id, again.attempt, again.delivery, again.payload) == ("a", 1, 2, b'{"case":"a"}')
    assert not await worker.finish(one, dead=None, counters={})
    await worker.finish(again, dead=None, counters={})
    stats = await sides.steering.stats()
    assert (stats.state, stats.scored, stats.dead) == (RunState.DRAINED, 2, 1)


async def test_i09_producing_again_leaves_a_delayed_case_its_delay(sides: Sides) -> None:
    worker = await open_run(sides, "a")
    (held,) = (await claim(worker)).claims
    await worker.release(held, delay_s=60.0, consume=True, counters={})
    assert await sides.enqueueing.enqueue([entry("a")]) == 0
    stats = await sides.steering.stats()
    assert (stats.ready, stats.delayed) == (0, 1)
    assert (await claim(worker)).claims == ()


async def test_finalizing_needs_a_drained_run(sides: Sides) -> None:
    await open_run(sides, "a")
    await sides.steering.end(RunState.FINALIZED)
    assert (await sides.steering.stats()).state is RunState.SEALED


async def test_a_worker_is_seen_until_it_leaves(sides: Sides) -> None:
    worker = await open_run(sides, "a")
    (held,) = (await claim(worker)).claims
    await worker.heartbeat([held], waiting=5)
    (seen,) = (await sides.steering.stats()).workers
    assert (seen.name, seen.in_flight, seen.waiting) == ("w1", 1, 5)
    await worker.leave()
    assert (await sides.steering.stats()).workers == ()
