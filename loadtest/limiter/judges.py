"""Judges in virtual time: one that refuses, some that never do and get slow under too many calls; and runs against them."""

import asyncio
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field

from loadtest.limiter.simulated import World, in_virtual_time, now
from loadtest.redis_server import Server
from queue_eval.core.limits import Charge, Counting, InFlight, Lane, Limits

TIMEOUT_S = 10.0
PROCESSES, EACH = 4, 16  # so many calls at once, if nothing holds them back
WITHIN_S = 600.0


@dataclass
class Refusing:
    """Admits `per_minute` in any minute, and nothing while it refuses everybody."""

    per_minute: int
    refuses: tuple[float, float]  # s
    admitted: list[float] = field(default_factory=list)  # s, in order

    def admits(self, now_s: float) -> bool:
        if self.refuses[0] <= now_s < self.refuses[1]:
            return False
        if len(self.admitted) - bisect_left(self.admitted, now_s - 60) >= self.per_minute:
            return False
        self.admitted.append(now_s)
        return True

    def served(self, start_s: float, end_s: float) -> int:
        return bisect_left(self.admitted, end_s) - bisect_left(self.admitted, start_s)


@dataclass
class Queueing:
    """Serves some calls at a time, first come, first served, whether their callers still wait or not."""

    service_s: float
    servers: Callable[[], int]
    waiting: list[asyncio.Event] = field(default_factory=list)
    busy: int = 0

    async def serve(self) -> None:
        if self.busy >= self.servers() or self.waiting:
            turn = asyncio.Event()
            self.waiting.append(turn)
            await turn.wait()
        else:
            self.busy += 1
        await asyncio.sleep(self.service_s)
        self.busy -= 1
        while self.waiting and self.busy < self.servers():
            self.busy += 1
            self.waiting.pop(0).set()


@dataclass
class Sharing:
    """Serves all calls at once, each the slower the more there are."""

    latency_s: Callable[[int], float]
    busy: int = 0

    async def serve(self) -> None:
        self.busy += 1
        await asyncio.sleep(self.latency_s(self.busy))
        self.busy -= 1


@dataclass
class Outcome:
    took_s: float
    asked: int
    timeouts: int
    most_in_flight: int


def run(
    server: Server,
    judge: Queueing | Sharing,
    calls: int,
    in_flight: InFlight,
    *,
    processes: int = PROCESSES,
    each: int = EACH,
    idle_s: float = 0.0,
) -> Outcome:
    """How long so many calls take; those that time out are made again.

    With `idle_s` one call goes before all, as that of a pre-flight does, and for so long none.
    """
    lane = Lane(name="r", weight=1.0, limits=Limits(), counting=Counting(), in_flight=in_flight)
    world = World(server, lane, processes=processes, calls_each=0)
    left, asked, timeouts, under_way, most = list(range(calls)), 0, 0, 0, 0
    serving: set[asyncio.Task[None]] = set()

    async def caller(number: int) -> None:
        nonlocal asked, timeouts, under_way, most
        limiter = world.limiters[number]
        while left:
            left.pop()
            while True:
                permit = await limiter.acquire(Charge())
                asked, under_way = asked + 1, under_way + 1
                most = max(most, under_way)
                task = asyncio.ensure_future(judge.serve())
                serving.add(task)
                await asyncio.wait({task}, timeout=TIMEOUT_S)
                under_way -= 1
                if task.done():
                    serving.discard(task)
                    limiter.settle(permit, Charge(), answered=True)
                    break
                timeouts += 1
                limiter.timed_out(permit)

    async def scene() -> float:
        async with world:
            if idle_s:
                permit = await world.limiters[0].acquire(Charge())
                await judge.serve()
                world.limiters[0].settle(permit, Charge(), answered=True)
                await asyncio.sleep(idle_s)
            async with asyncio.timeout(WITHIN_S):
                await asyncio.gather(*(caller(n) for n in range(processes) for _ in range(each)))
            took_s = now()
            for task in serving:
                task.cancel()
            return took_s

    return Outcome(in_virtual_time(scene), asked, timeouts, most)
