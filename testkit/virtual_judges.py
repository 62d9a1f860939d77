"""Judges in virtual time, and runs against them: one that refuses, and some that get slow under too many calls."""

import asyncio
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field

from queue_eval.core.limits import Charge, Counting, InFlight, Lane, Limits
from queue_eval.limiter.shared import SharedLimiter
from testkit.redis_server import Server
from testkit.virtual_limiters import World, in_virtual_time, now

TIMEOUT_S = 10.0
PROCESSES, EACH = 4, 16  # so many calls at once, if nothing holds them back
WITHIN_S = 600.0


@dataclass
class Refusing:
    """Admits `per_minute` calls in any minute, and none while it refuses all."""

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
    took_s: float = 0.0
    asked: int = 0
    timeouts: int = 0
    most_in_flight: int = 0


@dataclass
class _Calls:
    """So many calls of all processes; those that time out are made again."""

    judge: Queueing | Sharing
    left: int
    outcome: Outcome = field(default_factory=Outcome)
    under_way: int = 0
    serving: set[asyncio.Task[None]] = field(default_factory=set)

    async def made_through(self, limiter: SharedLimiter) -> None:
        while self.left:
            self.left -= 1
            while not await self._is_answered(limiter):
                self.outcome.timeouts += 1

    async def _is_answered(self, limiter: SharedLimiter) -> bool:
        permit = await limiter.acquire(Charge())
        self.outcome.asked, self.under_way = self.outcome.asked + 1, self.under_way + 1
        self.outcome.most_in_flight = max(self.outcome.most_in_flight, self.under_way)
        # the judge goes on with a call that was given up
        task = asyncio.ensure_future(self.judge.serve())
        self.serving.add(task)
        await asyncio.wait({task}, timeout=TIMEOUT_S)
        self.under_way -= 1
        if not task.done():
            limiter.timed_out(permit)
            return False
        self.serving.discard(task)
        limiter.settle(permit, Charge(), answered=True)
        return True


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
    """Make so many calls, in virtual time.

    With `idle_s` one call goes before all, as that of a pre-flight does, and for so long none.
    """
    lane = Lane(name="r", weight=1.0, limits=Limits(), counting=Counting(), in_flight=in_flight)
    world = World(server, lane, processes=processes, calls_each=0)
    made = _Calls(judge, calls)

    async def scene() -> None:
        async with world:
            if idle_s:
                await _Calls(judge, 1).made_through(world.limiters[0])
                await asyncio.sleep(idle_s)
            async with asyncio.timeout(WITHIN_S):
                await asyncio.gather(*(made.made_through(limiter) for limiter in world.limiters for _ in range(each)))
            made.outcome.took_s = now()
            for task in made.serving:
                task.cancel()

    in_virtual_time(scene)
    return made.outcome
