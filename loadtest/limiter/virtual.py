"""Scenes of hours in virtual time, on the real script and loop: judges that get slow or refuse, Redis away."""

import asyncio
import random
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from typing import Any

from queue_eval.core.limits import FIRST_IN_FLIGHT, InFlight
from testkit.redis_server import Server
from testkit.virtual_judges import TIMEOUT_S, Queueing, Refusing, Sharing, run
from testkit.virtual_limiters import Link, World, in_virtual_time, now, sliding


def _breaks_down(n: int) -> float:
    return 0.2 * (1 + (n / 8) ** 2)


def _of_all_lengths() -> Sharing:
    chance = random.Random(1)
    return Sharing(lambda _: min(chance.lognormvariate(-0.245, 0.7), 0.9 * TIMEOUT_S))


# a judge, the calls of its run, and the fixed numbers of calls in flight among which is the best
SLOW: dict[str, tuple[Callable[[], Queueing | Sharing], int, tuple[int, ...]]] = {
    "serves_1": (lambda: Queueing(1.0, lambda: 1), 400, (1, 2)),
    "serves_4": (lambda: Queueing(1.0, lambda: 4), 400, (4, 6)),
    "serves_16": (lambda: Queueing(1.0, lambda: 16), 400, (16, 24)),
    "serves_1_where_five_time_out": (lambda: Queueing(2.0, lambda: 1), 42, (1, 2)),
    "slower_with_each_call": (lambda: Sharing(lambda n: 0.3 * (1 + n / 8)), 1500, (32, 64)),
    "breaks_down_under_many": (lambda: Sharing(_breaks_down), 1200, (6, 8, 12)),
    "halves_and_comes_back": (lambda: Queueing(1.0, lambda: 4 if 30 <= now() < 70 else 8), 640, (4, 8)),
    "answers_of_all_lengths": (_of_all_lengths, 3000, (64,)),
    "slow_by_its_nature": (lambda: Sharing(lambda _: 6.0), 1000, (64,)),
}


def slow(server: Server) -> dict[str, Any]:
    """Time in that of the best fixed number of calls in flight, and the calls that timed out."""
    rows = {}
    for name, (judge, calls, fixed) in SLOW.items():
        adapted = run(server, judge(), calls, InFlight(first=FIRST_IN_FLIGHT, timeout_s=TIMEOUT_S))
        best_s = min(run(server, judge(), calls, InFlight(most=most, timeout_s=TIMEOUT_S)).took_s for most in fixed)
        rows[name] = {
            "over_the_best": round(adapted.took_s / best_s, 3),
            "in_vain": round(adapted.timeouts / adapted.asked, 4),
        }
    return rows


LIMIT, WINDOW_S, BEFORE_S, AFTER_S = 120, 6.0, 15.0, 30.0


async def _all_at_once(world: World) -> None:
    await _broken(world.links)


async def _one_after_another(world: World) -> None:
    await _broken(world.links, apart_s=0.4)


async def _half_for_good(world: World) -> None:
    for link in world.links[:4]:
        link.refuse()
    await asyncio.sleep(5)


async def _replies_of_half_a_second(world: World) -> None:
    for link in world.links:
        link.round_trip_s = 0.5
        await asyncio.sleep(0.7)


async def _replies_of_two_seconds(world: World) -> None:
    for link in world.links:
        link.round_trip_s = 2.0
        await asyncio.sleep(0.7)
    for link in world.links:
        link.round_trip_s = 0.002


async def _clock_steps_back(world: World) -> None:
    world.clock_off_ms = -600_000.0


async def _clock_steps_ahead(world: World) -> None:
    world.clock_off_ms = 30_000.0


async def _broken(links: list[Link], apart_s: float = 0.0) -> None:
    """They lose Redis, and are back five seconds later in another order."""
    for link in links:
        link.refuse()
        await asyncio.sleep(apart_s)
    await asyncio.sleep(5)
    for link in random.Random(1).sample(links, len(links)):
        link.is_refused = False
        await asyncio.sleep(apart_s)


AWAY: dict[str, Callable[[World], Awaitable[None]]] = {
    "all_at_once": _all_at_once,
    "one_after_another": _one_after_another,
    "half_for_good": _half_for_good,
    "replies_of_half_a_second": _replies_of_half_a_second,
    "replies_of_two_seconds": _replies_of_two_seconds,
    "clock_steps_back": _clock_steps_back,
    "clock_steps_ahead": _clock_steps_ahead,
}
CROWD = 1000


def away(server: Server) -> dict[str, Any]:
    """The fullest window in parts of the limit, and what is used afterwards; eight processes."""
    rows = {}
    for name, trouble in AWAY.items():
        world = World(server, sliding(LIMIT, WINDOW_S), processes=8)

        async def scene(world: World = world, trouble: Callable[[World], Awaitable[None]] = trouble) -> float:
            async with world:
                await asyncio.sleep(BEFORE_S)
                await trouble(world)
                await asyncio.sleep(AFTER_S)
                return now()

        end_s = in_virtual_time(scene)
        last = world.left(end_s - 2 * WINDOW_S, end_s) / (2 * LIMIT)
        rows[name] = {"fullest": round(world.fullest(WINDOW_S) / LIMIT, 4), "afterwards": round(last, 4)}
    return rows


def crowd(server: Server) -> dict[str, Any]:
    """A thousand processes under 60,000 requests a minute that lose Redis together, and have it again."""
    limit = 6000
    world = World(server, sliding(limit, WINDOW_S), processes=CROWD, calls_each=9)

    async def scene() -> None:
        async with world:
            await asyncio.sleep(2 * WINDOW_S)
            await _broken(world.links)
            await asyncio.sleep(2 * WINDOW_S)

    in_virtual_time(scene)
    return {
        "fullest": round(world.fullest(WINDOW_S) / limit, 4),
        "before": round(world.left(WINDOW_S, 2 * WINDOW_S) / limit, 4),
        "afterwards": round(world.left(3 * WINDOW_S + 5, 4 * WINDOW_S + 5) / limit, 4),
    }


# requests a minute, and for how many seconds all are refused
REFUSED = {
    "60_for_an_hour": (60, 3600.0),
    "600_for_3_min": (600, 180.0),
    "3000_for_3_min": (3000, 180.0),
    "60000_for_a_second": (60_000, 1.0),
}


def refusing(server: Server) -> dict[str, Any]:
    """Parts of the limit that are served 30 s and 60 s after the first success, and refusals a second."""
    rows = {}
    for name, (per_minute, refused_s) in REFUSED.items():
        again_s = BEFORE_S + refused_s
        judge = Refusing(per_minute, refuses=(BEFORE_S, again_s))
        calls_each = max(2, per_minute // 60)
        world = World(server, sliding(per_minute, 60.0), processes=2, calls_each=calls_each, admits=judge.admits)

        async def scene(world: World = world, again_s: float = again_s) -> None:
            async with world:
                await asyncio.sleep(again_s + 130)

        in_virtual_time(scene)
        first_s = judge.admitted[bisect_left(judge.admitted, again_s)]
        rows[name] = {
            "after_30_s": round(judge.served(first_s + 30, first_s + 40) / per_minute * 6, 3),
            "after_60_s": round(judge.served(first_s + 60, first_s + 120) / per_minute, 3),
            "refused_per_s": round(world.refused / refused_s, 2),
        }
    return rows
