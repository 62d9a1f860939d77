"""docs/explanation/limiter.md, "When the judge gets slow": judges that never refuse, in virtual time, on the real script and loop.

Each run ends within 1.3 times what the best fixed number of calls in flight takes, and wastes at most 5 % of its calls.
"""

import asyncio
import random

import pytest

from queue_eval.core.limits import FIRST_IN_FLIGHT, Charge, Counting, InFlight, Lane, Limits
from testkit.redis_server import Server
from testkit.virtual_judges import EACH, PROCESSES, TIMEOUT_S, Queueing, Sharing, run
from testkit.virtual_limiters import World, in_virtual_time, now

pytestmark = pytest.mark.long

UNKNOWN = InFlight(first=FIRST_IN_FLIGHT, timeout_s=TIMEOUT_S)


@pytest.mark.parametrize(
    ("servers", "calls"),
    [(1, 50), (4, 50), (16, 50), pytest.param(1, 400, marks=pytest.mark.thorough), (4, 400), (16, 400)],
)
def test_a_judge_that_serves_a_few_at_a_time(redis_server: Server, servers: int, calls: int) -> None:
    outcome = run(redis_server, Queueing(1.0, lambda: servers), calls, UNKNOWN)
    assert outcome.took_s <= 1.3 * max(calls / servers, 1.0) + 6  # six answers until it is known
    assert outcome.timeouts <= 0.05 * outcome.asked


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_short_run_of_many_processes_starts_with_a_call_for_each(redis_server: Server, seed: int) -> None:
    """Eight processes of one call: what a few of them could have served while it was found out is gone."""
    chance = random.Random(seed)
    spent_s = sorted((min(chance.lognormvariate(0.0, 1.2), 9.0) for _ in range(96)), reverse=True)
    total_s = sum(spent_s)
    in_flight = InFlight(first=FIRST_IN_FLIGHT, timeout_s=120.0)
    outcome = run(redis_server, Sharing(lambda _: spent_s.pop(0)), 96, in_flight, processes=8, each=1)
    assert outcome.took_s <= 1.3 * total_s / 8
    assert outcome.timeouts == 0


@pytest.mark.parametrize("servers", [pytest.param(1, marks=pytest.mark.thorough), 4])
@pytest.mark.parametrize("processes", [16, pytest.param(60, marks=pytest.mark.thorough)])
def test_many_processes_do_not_bring_a_small_judge_down(redis_server: Server, servers: int, processes: int) -> None:
    outcome = run(redis_server, Queueing(0.5, lambda: servers), 400, UNKNOWN, processes=processes, each=4)
    assert outcome.took_s <= 1.3 * 400 * 0.5 / servers + 3
    assert outcome.timeouts <= 0.05 * outcome.asked


def test_the_time_before_the_calls_makes_no_judge_look_slow(redis_server: Server) -> None:
    """Of four calls and eight the judge serves as many a second, so sixteen are never tried."""
    outcome = run(redis_server, Queueing(0.5, lambda: 1), 40, UNKNOWN, idle_s=6.0)
    assert outcome.most_in_flight <= 8


def test_twice_the_calls_are_not_tried_where_they_would_time_out(redis_server: Server) -> None:
    """One is served at a time, so that four take eight of the ten seconds."""
    outcome = run(redis_server, Queueing(2.0, lambda: 1), 42, UNKNOWN)
    assert outcome.took_s <= 1.3 * 42 * 2
    assert outcome.timeouts <= 0.05 * outcome.asked


def test_a_judge_that_gets_slower_with_each_call(redis_server: Server) -> None:
    """The more in flight the better: 64 calls take 2.7 s, which is 23.7 a second."""
    outcome = run(redis_server, Sharing(lambda n: 0.3 * (1 + n / 8)), 1500, UNKNOWN)
    assert outcome.took_s <= 1.3 * 1500 / 23.7
    assert outcome.timeouts <= 0.05 * outcome.asked


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_a_judge_that_breaks_down_under_many(redis_server: Server, spread: float) -> None:
    """At best with eight in flight: 20 calls a second. With 64 it is not five."""
    chance = random.Random(1)

    def latency_s(n: int) -> float:
        length = chance.lognormvariate(-spread * spread / 2, spread)  # of an answer; one in the mean
        return 0.2 * (1 + (n / 8) ** 2) * length

    outcome = run(redis_server, Sharing(latency_s), 1200, UNKNOWN)
    assert outcome.took_s <= 1.3 * 1200 / 20
    assert outcome.timeouts <= 0.05 * outcome.asked


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(n, marks=pytest.mark.thorough) for n in (2, 3))])
def test_answers_of_all_lengths_are_no_congestion(redis_server: Server, seed: int) -> None:
    """A judge for which no number of calls is too many: 64 in flight, of a second in the mean, and then the longest."""
    chance = random.Random(seed)
    judge = Sharing(lambda _: min(chance.lognormvariate(-0.245, 0.7), 0.9 * TIMEOUT_S))
    outcome = run(redis_server, judge, 3000, UNKNOWN)
    assert outcome.took_s <= 1.3 * (3000 / 64 + 5)
    assert outcome.timeouts == 0


@pytest.mark.parametrize("first", [FIRST_IN_FLIGHT, None])
def test_a_judge_that_takes_long_by_its_nature_is_not_held_back(redis_server: Server, first: int | None) -> None:
    """Six of the ten seconds that a call may take, however many there are."""
    outcome = run(redis_server, Sharing(lambda _: 6.0), 1000, InFlight(first=first, timeout_s=TIMEOUT_S))
    assert outcome.took_s <= 1.3 * 1000 * 6 / 64 + (40 if first else 0)
    assert outcome.timeouts == 0


def test_a_judge_that_hung_once_is_given_all_again(redis_server: Server) -> None:
    """For ten seconds it answers nothing; before and afterwards each call takes three, however many there are."""
    judge = Sharing(lambda _: 13.0 if 20 <= now() < 30 else 3.0)
    outcome = run(redis_server, judge, 2500, InFlight(timeout_s=TIMEOUT_S))
    assert outcome.took_s <= 1.3 * 2500 * 3 / 64 + 40


def test_without_redis_no_more_are_in_flight_than_with_it(redis_server: Server) -> None:
    lane = Lane(name="r", weight=1.0, limits=Limits(), counting=Counting(), in_flight=InFlight(most=6))
    world = World(redis_server, lane, processes=4, calls_each=0)
    judge = Sharing(lambda _: 2.0)
    most: list[int] = []

    async def caller(number: int) -> None:
        while True:
            permit = await world.limiters[number].acquire(Charge())
            most.append(judge.busy + 1)
            await judge.serve()
            world.limiters[number].settle(permit, Charge(), answered=True)

    async def scene() -> None:
        async with world:
            callers = [asyncio.ensure_future(caller(number)) for number in range(4) for _ in range(50)]
            await asyncio.sleep(4)
            for link in world.links:
                link.refuse()
            await asyncio.sleep(6)
            for link in world.links:
                link.is_refused = False
            await asyncio.sleep(6)
            for task in callers:
                task.cancel()

    in_virtual_time(scene)
    assert max(most) <= 6


def test_a_judge_whose_capacity_halves_and_comes_back(redis_server: Server) -> None:
    clock: list[float] = []

    def servers() -> int:
        clock[:] = [now()]
        return 4 if 30 <= now() < 70 else 8

    outcome = run(redis_server, Queueing(1.0, servers), 640, UNKNOWN)
    # 240 in thirty seconds, 160 in forty, and 240 in thirty
    assert outcome.took_s <= 1.3 * 100
    assert outcome.timeouts <= 0.05 * outcome.asked


def test_where_limits_are_known_all_calls_go_until_they_time_out(redis_server: Server) -> None:
    """A provider that refuses too many is not begun carefully; one that does not after all is found out."""
    outcome = run(redis_server, Queueing(1.0, lambda: 2), 300, InFlight(timeout_s=TIMEOUT_S))
    assert outcome.most_in_flight == PROCESSES * EACH
    # the judge goes on with the calls that were given up, and that costs what they take
    assert outcome.took_s <= 1.3 * (300 + outcome.timeouts) / 2
    assert outcome.timeouts <= 2 * PROCESSES * EACH


@pytest.mark.parametrize("most", [1, 7])
def test_never_more_than_configured(redis_server: Server, most: int) -> None:
    outcome = run(redis_server, Queueing(0.1, lambda: 64), 100, InFlight(most=most, timeout_s=TIMEOUT_S))
    assert outcome.most_in_flight == most


def test_the_calls_of_a_dead_process_are_in_flight_no_more(redis_server: Server) -> None:
    """Three of four processes have all places, and die with their calls under way."""
    lane = Lane(name="r", weight=1.0, limits=Limits(), counting=Counting(), in_flight=InFlight(most=6))
    world = World(redis_server, lane, processes=4, calls_each=0)

    async def scene() -> None:
        async with world:
            for number in (0, 1, 2):
                for _ in range(2):
                    await world.limiters[number].acquire(Charge())
            waiting = asyncio.ensure_future(world.limiters[3].acquire(Charge()))
            await asyncio.sleep(1)
            assert not waiting.done()
            for number in (0, 1, 2):
                world.kill(number)
            await asyncio.wait_for(waiting, 6)

    in_virtual_time(scene)


def test_a_process_that_leaves_has_nothing_in_flight(redis_server: Server) -> None:
    """Its last settlements may be untold. Who waits for its places waits a second."""
    lane = Lane(name="r", weight=1.0, limits=Limits(), counting=Counting(), in_flight=InFlight(most=2))
    world = World(redis_server, lane, processes=2, calls_each=0)

    async def scene() -> None:
        async with world:
            for _ in range(2):
                await world.limiters[0].acquire(Charge())
            waiting = asyncio.ensure_future(world.limiters[1].acquire(Charge()))
            await asyncio.sleep(1)
            await world.limiters[0].close()
            await asyncio.wait_for(waiting, 1.5)

    in_virtual_time(scene)


def test_the_strictest_of_several_runs_binds_all_and_a_run_that_comes_stops_no_other(redis_server: Server) -> None:
    """One knows its limits, and has all of its calls in flight; one knows nothing; one names a bound."""

    def lane(name: str, in_flight: InFlight) -> Lane:
        return Lane(name=name, weight=1.0, limits=Limits(), counting=Counting(), in_flight=in_flight)

    judge = Sharing(lambda _: 0.5)
    world = World(redis_server, lane("knows", InFlight()), processes=1, calls_each=0)
    under_way: list[int] = []

    async def caller(number: int) -> None:
        while True:
            permit = await world.limiters[number].acquire(Charge())
            await judge.serve()
            world.limiters[number].settle(permit, Charge(), answered=True)

    async def scene() -> None:
        async with world:
            callers = [asyncio.ensure_future(caller(0)) for _ in range(40)]
            await asyncio.sleep(5)
            world.lane = lane("new", InFlight(first=2))
            world.join()
            callers += [asyncio.ensure_future(caller(1)) for _ in range(40)]
            await asyncio.sleep(5)
            under_way.append(judge.busy)
            world.lane = lane("bound", InFlight(most=7))
            world.join()
            callers += [asyncio.ensure_future(caller(2)) for _ in range(5)]
            await asyncio.sleep(3)
            for _ in range(200):
                await asyncio.sleep(0.1)
                under_way.append(judge.busy)
            for task in callers:
                task.cancel()

    in_virtual_time(scene)
    assert under_way[0] >= 40
    assert max(under_way[1:]) <= 7
