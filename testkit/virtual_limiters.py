"""Limiters of many processes on the real script, in virtual time: what takes minutes there takes seconds here.

The event loop's clock jumps to the next timer, and Redis' clock is the loop's. Each process has a link to Redis of its
own, which may be slow, refused or dead.
"""

import asyncio
import itertools
import selectors
from bisect import bisect_right
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import redis.exceptions as errors
from redis import Redis

from queue_eval.core.limits import Charge, Counting, Lane, Limits
from queue_eval.limiter.shared import SharedLimiter
from queue_eval.limiter.sync_script import source
from testkit.redis_server import Server

CLOCK = "local function clock_ms() return tonumber(ARGV[2]) end\n"
START_MS = 1e12
T = TypeVar("T")
_keys = itertools.count()


class _Selector(selectors.SelectSelector):
    """Waits for nothing: time passes instead."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> Any:
        if timeout:
            self.loop.passed_s += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.passed_s = 0.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.passed_s


def in_virtual_time(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work())


def now() -> float:
    return asyncio.get_running_loop().time()


class Published:
    """What scripts have published, for whom."""

    def __init__(self, server: "Redis") -> None:
        self._told = server.pubsub()  # type: ignore[no-untyped-call]
        self._told.psubscribe("*")
        self._listeners: dict[bytes, asyncio.Queue[bytes]] = {}

    def to(self, channel: str) -> "asyncio.Queue[bytes]":
        return self._listeners.setdefault(channel.encode(), asyncio.Queue())

    def deliver(self) -> None:
        """What was published before this question stands before its answer."""
        self._told.ping()
        while (message := self._told.get_message(timeout=5)) is None or message["type"] != "pong":
            if message and message["type"] == "pmessage" and message["channel"] in self._listeners:
                self._listeners[message["channel"]].put_nowait(message["data"])

    def close(self) -> None:
        self._told.close()


@dataclass
class Subscription:
    """In place of the client's."""

    link: "Link"
    channel: str = ""

    async def subscribe(self, channel: str) -> None:
        await self.link.ping()
        self.channel = channel

    async def get_message(self, timeout: float) -> dict[str, Any] | None:  # noqa: ASYNC109 - the client's
        message = asyncio.ensure_future(self.link.published.to(self.channel).get())
        broken = asyncio.ensure_future(self.link.broken.wait())
        try:
            await asyncio.wait({message, broken}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if broken.done():
                raise errors.ConnectionError("broken")
            if not message.done():
                return None
            await self.link.half_way()
            return {"type": "message", "data": message.result()}
        finally:
            message.cancel()
            broken.cancel()

    async def ping(self) -> None:
        if await self.link.ping():
            self.link.published.to(self.channel).put_nowait(b"")

    async def aclose(self) -> None:
        pass


@dataclass
class Link:
    """The way of one process to Redis, in place of its client."""

    server: "Redis"
    published: Published
    clock_off_ms: Callable[[], float]
    round_trip_s: float = 0.002
    is_refused: bool = False
    is_dead: bool = False  # nothing comes back, nor an error
    broken: asyncio.Event = field(default_factory=asyncio.Event)

    def register_script(self, _source: str) -> Callable[..., Awaitable[Any]]:
        script = self.server.register_script(CLOCK + source("limits", "in_flight", "sync"))

        async def call(keys: list[str], args: list[Any]) -> Any:
            await self.half_way()
            reply = script(keys=keys, args=[*args, START_MS + 1000 * now() + self.clock_off_ms()])
            self.published.deliver()
            await self.half_way()
            return reply

        return call

    def pubsub(self) -> Subscription:
        return Subscription(self)

    async def ping(self) -> bool:
        await self.half_way()
        await self.half_way()
        return True

    async def hdel(self, key: str, field: str) -> None:
        await self.half_way()
        self.server.hdel(key, field)

    async def delete(self, key: str) -> None:
        await self.half_way()
        self.server.delete(key)

    def refuse(self) -> None:
        """Connections are broken off, and new ones refused."""
        self.is_refused = True
        self.broken.set()
        self.broken = asyncio.Event()

    async def half_way(self) -> None:
        if self.is_refused:
            raise errors.ConnectionError("refused")
        if self.is_dead:
            await asyncio.sleep(1e9)
        broken = self.broken
        waiting = asyncio.ensure_future(broken.wait())
        try:
            await asyncio.wait({waiting}, timeout=self.round_trip_s / 2)
        finally:
            waiting.cancel()
        if broken.is_set():
            raise errors.ConnectionError("broken")


def sliding(limit: float, window_s: float) -> Lane:
    """Return the lane of a run that may make `limit` requests in any window."""
    counting = Counting(window="sliding", window_s=window_s)
    return Lane(name="r", weight=1.0, limits=Limits(requests=limit * 60 / window_s), counting=counting)


@dataclass
class World:
    """Processes that always have calls waiting, when each of their calls left, and how many the judge refused."""

    server: Server
    lane: Lane
    processes: int
    calls_each: int = 20
    admits: Callable[[float], bool] = lambda _at_s: True
    clock_off_ms: float = 0.0
    links: list[Link] = field(default_factory=list)
    left_at: list[float] = field(default_factory=list)  # s
    left_from: Counter[int] = field(default_factory=Counter)
    refused: int = 0

    def __post_init__(self) -> None:
        self.key = f"simulated-{next(_keys)}"
        self.redis = Redis.from_url(self.server.url)
        self.published = Published(self.redis)
        self._tokens = itertools.count()

    async def __aenter__(self) -> Self:
        self.limiters: list[SharedLimiter] = []
        self._callers: dict[int, list[asyncio.Task[None]]] = {}
        for _ in range(self.processes):
            self.join()
        return self

    def join(self) -> int:
        number = len(self.links)
        link = Link(self.redis, self.published, lambda: self.clock_off_ms)
        self.links.append(link)
        limiter = SharedLimiter(
            link, key=self.key, process=f"p{number}", lane=self.lane, adjusts=True, now=now, new_token=lambda: f"{next(self._tokens)}"  # type: ignore[arg-type]
        )  # fmt: skip
        self.limiters.append(limiter)
        self._callers[number] = [asyncio.create_task(self._calls(number, limiter)) for _ in range(self.calls_each)]
        return number

    def kill(self, number: int) -> None:
        """The process sends nothing more."""
        self.links[number].is_dead = True
        for task in self._callers.pop(number, ()):
            task.cancel()

    async def _calls(self, number: int, limiter: SharedLimiter) -> None:
        while True:
            permit = await limiter.acquire(Charge())
            self.left_at.append(now())
            self.left_from[number] += 1
            if self.admits(now()):
                limiter.settle(permit, Charge())
            else:
                self.refused += 1
                limiter.rate_limited(permit, None)

    async def __aexit__(self, *_: object) -> None:
        ended = [task for tasks in self._callers.values() for task in tasks if task.done() and not task.cancelled()]
        for number in range(len(self.limiters)):
            self.kill(number)
        await asyncio.gather(*(limiter.close() for limiter in self.limiters))
        for task in ended:
            task.result()  # they end by errors alone
        self.published.close()
        self.redis.close()

    def left(self, start_s: float, end_s: float) -> int:
        return bisect_right(self.left_at, end_s) - bisect_right(self.left_at, start_s)

    def fullest(self, window_s: float, start_s: float = 0.0) -> int:
        """The most calls that left within any stretch of that length from `start_s` on."""
        return max((self.left(at - window_s, at) for at in self.left_at if at >= start_s + window_s), default=0)
