"""What another hand writes into the limiter's keys, or deletes there, one place and one value at a time.

In virtual time. SECURITY.md's promise: each process gets permits again within two minutes. And the limit
holds, from a second after.
"""

import asyncio
import re
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from redis import Redis

from queue_eval.core.limits import DIMENSIONS, Charge, InFlight, Lane
from queue_eval.limiter.keys import LimiterKeys
from queue_eval.limiter.sync_script import source
from testkit.redis_server import Server
from testkit.virtual_limiters import START_MS, World, in_virtual_time, now, sliding

pytestmark = pytest.mark.long

PER_MINUTE = 120
LANE = sliding(PER_MINUTE, 60.0)
BOUNDED = Lane(
    name="r", weight=1.0, limits=LANE.limits, counting=LANE.counting, in_flight=InFlight(first=4, timeout_s=10.0)
)
WITHIN_S = 125.0
LOOKS_S = 1.2  # what is wrong may show only when all is computed anew
CALLS = 3
ENOUGH = 3  # failures to show what is wrong
MOST_AT_ONCE = 4

Edit = Callable[[Redis, LimiterKeys], object]


VALUES = (
    "<+59000>", "<+900>", "<-9e9>", "0", "-1", "1", "0.5", "1e-9", "-1e-9", "1e14", "-1e14", "1e15", "1e308", "nan", "-inf", "1e400",
    "", "text", "1.2.3", "{", '{"r":1e400}', '{"r":nan}', "[" * 2000,
)  # fmt: skip
RECORDS = (
    "1.2.3 <rest>", "<+900> <rest>", "<+59000> <rest>", "9e15 <rest>", "0 <rest>", f"{'9' * 400} <rest>",
    f"<+0> {'9' * 30} 0.1 1.0 <token>", "<+0> <next> 0.0 1.0 <token>", "<+0> 0.9", "<+0> 99999",
    f"<+0> 1 {'9' * 400} {'9' * 400} <token>", "<+0> 1 1..1 1 <token>", "", "text",
)  # fmt: skip


def filled(text: str, record: str) -> str:
    """With the moments (ms from now) and the parts of the record that stands there now."""
    was = [*record.split(), "0", "0", "0", "0", "g0"]
    parts = {
        "rest": " ".join(record.split()[1:]),
        "next": str(int(was[1]) + 1) if was[1].isdigit() else "1",
        "token": was[4],
    }
    now_ms = START_MS + 1000 * now()
    return re.sub(
        r"<([^>]+)>", lambda found: parts[found[1]] if found[1] in parts else f"{now_ms + float(found[1]):.3f}", text
    )


def put(key: str, field: str, value: str, redis: Redis, _: LimiterKeys) -> None:
    there = redis.hget(key, field) if "<" in value else b""
    redis.hset(key, field, filled(value, (there or b"").decode()))  # type: ignore[union-attr]


def take(key: str, field: str, redis: Redis, _: LimiterKeys) -> None:
    redis.hdel(key, field)


def begin(key: str, rows: list[str], redis: Redis, _: LimiterKeys) -> None:
    redis.lpush(key, *rows)


def delete(key: str, redis: Redis, _: LimiterKeys) -> None:
    redis.delete(key)


def fields_of_state() -> frozenset[str]:
    """Of all that the scripts read, also what no script has written yet."""
    script = source("clock", "limits", "in_flight", "sync")
    plain = re.findall(r"\bstate\.([a-z_]+)", script)
    of_dimensions = re.findall(r"\bstate\['([a-z_]+_)' \.\. \w+\]", script)
    return frozenset([*plain, *(f"{name}{d}" for name in of_dimensions for d in DIMENSIONS)])


def edits_of_hash(
    redis: Redis, key: str, further: frozenset[str] = frozenset(), *, but: frozenset[str] = frozenset()
) -> Iterator[tuple[str, Edit]]:
    there = {raw.decode() for raw in redis.hkeys(key)}  # type: ignore[union-attr]
    for field in sorted((there | further) - but):
        if field in there:
            yield f"{key} {field} gone", partial(take, key, field)
        for value in VALUES:
            yield f"{key} {field} = {value[:20]}", partial(put, key, field, value)


def edits_of_records(redis: Redis, key: str) -> Iterator[tuple[str, Edit]]:
    """Records of several numbers, of a process that is here and of one that never was."""
    for name in (*(raw.decode() for raw in redis.hkeys(key)), "ghost.0", "ghost"):  # type: ignore[union-attr]
        for record in RECORDS:
            yield f"{key} {name} = {record[:40]}", partial(put, key, name, record)
        yield f"{key} {name} gone", partial(take, key, name)


def edits_of_queue(keys: LimiterKeys, process: str) -> Iterator[tuple[str, Edit]]:
    queue, permits = keys.fifo("r"), keys.grants(process)
    yield "queue gone", partial(delete, queue)
    yield "queue's first gone", lambda redis, _: redis.lpop(queue, 3)
    yield "50,000 of a live process", partial(begin, queue, [f"{process}|x{n}|0|0" for n in range(50_000)])
    yield "50,000 of none", partial(begin, queue, [f"ghost.0|x{n}|0|0" for n in range(50_000)])
    for row in (
        "garbage",
        f"{process}|9|x|y",
        "||",
        f"{process}|9|1e999|1",
        f"{process}|9|1e14|1e14",
        f"{process}|9|-1e14|-1e14",
    ):
        yield f"queue begins with {row}", partial(begin, queue, [row])
    yield "permits gone", partial(delete, permits)
    for row in ("garbage", "1|x|y|z", "999999|1|1|1", "1|-1|nan|inf"):
        yield f"permits begin with {row}", partial(begin, permits, [row])


def seen(name: str, score: float, redis: Redis, keys: LimiterKeys) -> None:
    redis.zadd(keys.lanes, {name: score})


def edits_of_keys(keys: LimiterKeys) -> Iterator[tuple[str, Edit]]:
    for name in ("r", "ghost"):
        for score in (float("inf"), float("-inf"), 9e15, 0):
            yield f"lane {name} seen at {score}", partial(seen, name, score)
    for key in (keys.state, keys.processes, keys.shares, keys.in_flight, keys.lanes, keys.lane("r")):
        yield f"{key} gone", partial(delete, key)


def edits(part: str, redis: Redis, keys: LimiterKeys) -> Iterator[tuple[str, Edit]]:
    match part:
        case "state":
            return edits_of_hash(redis, keys.state, fields_of_state())
        case "lane":
            # a low limit in a run's name, and few calls in flight, are what an operator sets too
            return edits_of_hash(redis, keys.lane("r"), but=frozenset({"limit_requests", "most_in_flight"}))
        case "keys":
            return edits_of_keys(keys)
        case "queue":
            name = next(raw.decode() for raw in redis.hkeys(keys.processes))  # type: ignore[union-attr]
            return edits_of_queue(keys, name)
    return edits_of_records(redis, getattr(keys, part))


async def goes_on(world: World) -> bool:
    """Whether each process gets CALLS permits within WITHIN_S."""
    before = world.left_from.copy()
    until = now() + WITHIN_S
    while now() < until:
        if all(world.left_from[n] - before[n] >= CALLS for n in range(world.processes)):
            return True
        await asyncio.sleep(0.1)
    return False


async def trouble(world: World) -> None:
    """A refusal, a header and a timeout, so that all fields are there."""
    world.limiters[0].observed({"requests": float(PER_MINUTE)})
    permit = await world.limiters[0].acquire(Charge())
    world.limiters[0].timed_out(permit)
    world.limiters[1].rate_limited(await world.limiters[1].acquire(Charge()), None)
    await asyncio.sleep(2)


@pytest.mark.parametrize("lane", [LANE, BOUNDED], ids=["a rate", "calls in flight too"])
@pytest.mark.parametrize(
    "part",
    [
        pytest.param("state", marks=pytest.mark.thorough),
        pytest.param("lane", marks=pytest.mark.thorough),
        "processes",
        "shares",
        "in_flight",
        "keys",
        "queue",
    ],
)
def test_nothing_that_another_hand_writes_stops_a_process_for_long(redis_server: Server, lane: Lane, part: str) -> None:
    stopped: list[str] = []
    beyond: list[str] = []

    async def scene() -> None:
        async with World(redis_server, lane, processes=2, calls_each=1) as world:
            await asyncio.sleep(2)
            await trouble(world)
            keys = LimiterKeys(world.key)
            for what, edit in list(edits(part, world.redis, keys)):
                edit(world.redis, keys)
                await asyncio.sleep(LOOKS_S)
                since = now()
                if not await goes_on(world):
                    stopped.append(what)
                # a burst that is set in a lane is one that its calls may have
                if part != "lane" and world.left(since, now()) > MOST_AT_ONCE + PER_MINUTE / 60 * (now() - since):
                    beyond.append(what)
                if len(stopped) + len(beyond) >= ENOUGH:
                    return

    in_virtual_time(scene)
    assert not stopped
    assert not beyond
