"""Limits that answers name to one process and not to another, in virtual time."""

import asyncio

import pytest

from queue_eval.core.limits import Counting, Lane, Limits
from testkit.redis_server import Server
from testkit.virtual_limiters import World, in_virtual_time

pytestmark = pytest.mark.long

LANE = Lane(name="r", weight=1.0, limits=Limits(requests=1200.0), counting=Counting(window="sliding", window_s=6.0))


def test_the_newest_word_of_any_process_counts(redis_server: Server) -> None:
    """One answer named half the limit, once; the other processes' answers go on naming all of it."""
    world = World(redis_server, LANE, processes=3)

    async def scene() -> None:
        async with world:
            world.limiters[1].observed({"requests": 1200.0})
            await asyncio.sleep(8)
            world.limiters[0].observed({"requests": 600.0})
            for _ in range(30):
                await asyncio.sleep(1)
                world.limiters[1].observed({"requests": 1200.0})

    in_virtual_time(scene)
    assert world.left(8.5, 9) <= 7
    assert world.left(20, 32) >= 0.95 * 240


def test_a_lower_limit_holds_as_long_as_it_is_reported(redis_server: Server) -> None:
    world = World(redis_server, LANE, processes=2)

    async def scene() -> None:
        async with world:
            await asyncio.sleep(8)
            for _ in range(40):
                world.limiters[0].observed({"requests": 600.0})
                await asyncio.sleep(5)

    in_virtual_time(scene)
    assert world.fullest(6.0, start_s=16) <= 60
    assert world.left(190, 202) >= 0.9 * 120
