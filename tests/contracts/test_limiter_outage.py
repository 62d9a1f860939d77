"""docs/explanation/limiter.md, "When Redis is away": processes that lose Redis one after another, slowly and partly.

In virtual time. The expected values are the promises' own words: never above the limit in any window, and .9 of the
rate by all together.
"""

import asyncio
import random

import pytest

from loadtest.limiter import virtual
from testkit.redis_server import Server
from testkit.virtual_limiters import World, in_virtual_time, sliding

pytestmark = pytest.mark.long

WINDOW_S = 6.0
LIMIT = 120  # in a window


LANE = sliding(LIMIT, WINDOW_S)


@pytest.fixture
def world(redis_server: Server) -> World:
    return World(redis_server, LANE, processes=8)


def test_all_lose_redis_at_once(world: World) -> None:
    async def scene() -> None:
        async with world:
            await asyncio.sleep(20)
            for link in world.links:
                link.refuse()
            await asyncio.sleep(40)

    in_virtual_time(scene)
    assert world.fullest(WINDOW_S) <= LIMIT
    # nothing for a second, then .9 of the limit at most, and most of that, for three seconds; then nothing
    assert world.left(20.1, 20.9) == 0
    assert 0.75 * LIMIT / 2 <= world.left(21, 24) <= 0.9 * LIMIT / 2
    assert world.left(24.1, 60) == 0


@pytest.mark.parametrize("apart_s", [0.05, 0.4, 1.0, 2.5])
def test_one_after_another_loses_redis_and_comes_back_in_another_order(world: World, apart_s: float) -> None:
    async def scene() -> None:
        async with world:
            await asyncio.sleep(15)
            for link in world.links:
                link.refuse()
                await asyncio.sleep(apart_s)
            await asyncio.sleep(5)
            for link in random.Random(1).sample(world.links, 8):
                link.is_refused = False
                await asyncio.sleep(apart_s)
            await asyncio.sleep(15)

    in_virtual_time(scene)
    assert world.fullest(WINDOW_S) <= LIMIT
    # it serves meanwhile, as long as what they were promised holds, and afterwards as before
    away_s = 15 + 8 * apart_s
    assert world.left(16, 18.5) >= 0.5 * LIMIT * 2.5 / WINDOW_S
    end_s = away_s + 5 + 8 * apart_s + 3
    assert world.left(end_s, end_s + 12) >= 0.95 * 2 * LIMIT


def test_the_others_do_not_get_what_a_lost_one_may_use(world: World) -> None:
    """Half of them are cut off for good: all together stay within the limit, and nearly use it."""

    async def scene() -> None:
        async with world:
            await asyncio.sleep(15)
            for link in world.links[:4]:
                link.refuse()
            await asyncio.sleep(25)

    in_virtual_time(scene)
    assert world.fullest(WINDOW_S) <= LIMIT
    assert world.left(17, 23) >= 0.85 * LIMIT
    # what they were promised has ended, and the others have all of it
    assert world.left(30, 36) >= 0.95 * LIMIT


def test_those_that_come_while_others_are_lost_get_what_is_left(redis_server: Server) -> None:
    """One that was alone has lost Redis, three come, and lose it too: all together have nine tenths."""
    world = World(redis_server, LANE, processes=1)

    async def scene() -> None:
        async with world:
            await asyncio.sleep(15)
            world.links[0].refuse()
            await asyncio.sleep(0.2)
            for _ in range(3):
                world.join()
            await asyncio.sleep(0.3)
            for link in world.links:
                link.refuse()
            await asyncio.sleep(9)

    in_virtual_time(scene)
    assert world.fullest(WINDOW_S) <= LIMIT
    assert 0 < world.left(16.5, 19.5) <= 0.9 * LIMIT / 2


@pytest.mark.parametrize("round_trip_s", [0.05, 0.2, 0.3, 1.0, 2.0])
def test_slow_replies_are_no_outage(world: World, round_trip_s: float) -> None:
    """They come later one after another: nothing is released on top of what Redis releases, and the queue goes on."""

    async def scene() -> None:
        async with world:
            await asyncio.sleep(10)
            for link in world.links:
                link.round_trip_s = round_trip_s
                await asyncio.sleep(0.7)
            await asyncio.sleep(30)

    in_virtual_time(scene)
    assert world.fullest(WINDOW_S) <= LIMIT
    assert world.left(25, 45) > 0


@pytest.mark.parametrize("round_trip_s", [0.002, 0.5])
def test_a_server_that_lost_everything_does_not_give_away_what_it_had_promised(
    world: World, round_trip_s: float
) -> None:
    """Half of the processes come back to an empty server, half are cut off from it and use their shares.

    Those that come back have shares of their own, or are too far away to have any for now.
    """

    async def scene() -> None:
        async with world:
            for link in world.links[:4]:
                link.round_trip_s = round_trip_s
            await asyncio.sleep(15)
            for link in world.links:
                link.refuse()
            world.redis.flushall()
            await asyncio.sleep(3)
            for link in world.links[:4]:
                link.is_refused = False
            await asyncio.sleep(6)
            for link in world.links[:4]:
                link.round_trip_s = 0.002
            await asyncio.sleep(24)

    in_virtual_time(scene)
    assert world.fullest(WINDOW_S) <= LIMIT
    # what was promised has ended, and the others have all of it
    assert world.left(39, 45) >= 0.95 * LIMIT


@pytest.mark.parametrize("processes", [1, 100])
def test_with_more_processes_than_a_window_has_calls_the_limit_is_kept(redis_server: Server, processes: int) -> None:
    """Each has a call ready; a hundredth of the limit each would be less than one call."""
    world = World(redis_server, sliding(60, 6.0), processes=processes, calls_each=3)

    async def scene() -> None:
        async with world:
            await asyncio.sleep(8)
            for link in world.links:
                link.refuse()
            await asyncio.sleep(14)

    in_virtual_time(scene)
    assert world.fullest(6.0) <= 60
    assert world.left(9, 12) >= 15


@pytest.mark.thorough
def test_a_thousand_processes_lose_redis_and_have_it_again(redis_server: Server) -> None:
    """Under 60,000 requests a minute."""
    used = virtual.crowd(redis_server)
    assert used["fullest"] <= 1.0
    assert min(used["before"], used["afterwards"]) >= 0.95


@pytest.mark.parametrize("lost", [1, 8])
def test_one_that_comes_when_all_are_lost_waits_and_is_served(redis_server: Server, lost: int) -> None:
    """What the others may be using is all there is, until that ends."""
    world = World(redis_server, LANE, processes=lost)

    async def scene() -> None:
        async with world:
            await asyncio.sleep(10)
            for number in range(lost):
                world.kill(number)
            await asyncio.sleep(1)
            world.join()
            await asyncio.sleep(20)

    in_virtual_time(scene)
    assert world.fullest(WINDOW_S) <= LIMIT
    assert world.left_from[lost] >= 0.9 * LIMIT * 14 / WINDOW_S


@pytest.mark.parametrize("step_s", [-600.0, -5.0, 30.0])
def test_redis_clock_may_step(world: World, step_s: float) -> None:
    """Half of them are lost, one pause and some cuts are known, and then the clock steps."""

    async def scene() -> None:
        async with world:
            await asyncio.sleep(10)
            for link in world.links[:4]:
                link.refuse()
            await asyncio.sleep(0.5)
            world.clock_off_ms = 1000 * step_s
            await asyncio.sleep(30)

    in_virtual_time(scene)
    assert world.fullest(WINDOW_S) <= LIMIT + (
        2 if step_s > 0 else 0
    )  # a burst: it looks as if there had been no call for long
    assert world.left(20, 38) >= 0.9 * 3 * LIMIT


def test_a_process_that_leaves_takes_nothing_along(world: World) -> None:
    async def scene() -> None:
        async with world:
            await asyncio.sleep(15)
            for limiter in world.limiters[:4]:
                await limiter.close()
            await asyncio.sleep(10)

    in_virtual_time(scene)
    assert world.left(17, 23) >= 0.95 * LIMIT
    assert world.fullest(WINDOW_S) <= LIMIT


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(n, marks=pytest.mark.thorough) for n in (2, 3))])
def test_whatever_becomes_of_whom_the_limit_is_kept(redis_server: Server, seed: int) -> None:
    """Links that break, return, slow down and fall silent, processes that come and are killed, at random."""
    assert broken_promise(redis_server, seed) == ""


def broken_promise(server: Server, seed: int) -> str:
    chance = random.Random(seed)
    window_s = chance.choice([1.0, 6.0, 20.0])
    limit = chance.choice([12, 60, 240])
    world = World(
        server, sliding(limit, window_s), processes=chance.randint(1, 10), calls_each=chance.choice([1, 5, 30])
    )

    async def scene() -> None:
        async with world:
            await asyncio.sleep(10)
            for _ in range(60):
                link = chance.choice(world.links)
                match chance.randrange(7):
                    case 0 | 1:
                        link.refuse()
                    case 2 | 3:
                        link.is_refused, link.round_trip_s = False, 0.002
                    case 4:
                        link.round_trip_s = chance.choice([0.02, 0.15, 0.4, 1.5])
                    case 5 if len(world.links) < 14:
                        world.join()
                    case 6 if len(world.links) > 1:
                        world.kill(chance.randrange(len(world.links)))
                await asyncio.sleep(chance.expovariate(2.0))

    in_virtual_time(scene)
    fullest = world.fullest(window_s)
    return "" if fullest <= limit else f"{fullest} calls in {window_s:g} s, of {limit}"
