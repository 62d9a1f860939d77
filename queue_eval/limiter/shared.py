"""The limiter in Redis. One pump per process carries all its waiters in one call."""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import redis.exceptions as errors
from redis.asyncio import Redis

from queue_eval.core.bucket import Bucket
from queue_eval.ports import LimiterStats, Now, Permit, Sleep

log = logging.getLogger("queue_eval.limiter")

UNLIMITED = Bucket(burst=1e12, refill_per_s=0.0)

MAX_SLEEP_S = 0.1  # others may release our tickets: look for them at least this often
MIN_SLEEP_S = 0.002
OUTAGE_SLEEP_S = 0.5
DEFAULT_PAUSE_S = 1.0  # after a 429 that names no time
MAX_PAUSE_S = 60.0
CLOSE_WITHIN_S = 2.0


@dataclass(slots=True, eq=False)
class _Waiter:
    ticket: str
    tokens: int
    granted: "asyncio.Future[None]"


class SharedLimiter:
    """FIFO over all processes that name the same key. Without Redis nothing is released: waiters wait."""

    def __init__(
        self,
        redis: Redis,
        *,
        key: str,
        process: str,
        requests: Bucket,
        tokens: Bucket,
        now: Now,
        sleep: Sleep,
        new_token: Callable[[], str],
    ) -> None:
        self._script = redis.register_script((files("queue_eval.limiter") / "lua" / "pump.lua").read_text())
        self._redis = redis
        self._keys = limiter_keys(key)
        self._process = process
        self._buckets = (requests, tokens)
        self._now = now
        self._sleep = sleep
        self._new_token = new_token
        self._waiters: dict[str, _Waiter] = {}  # in the order of arrival
        self._unsent: list[_Waiter] = []
        self._generation = ""
        self._give_back = 0.0
        self._pause_ms = 0
        self._count_429 = 0
        self._serial = 0
        self._closed = False
        self._wake = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    async def acquire(self, tokens: int) -> Permit:
        self._serial += 1
        waiter = _Waiter(str(self._serial), tokens, asyncio.get_running_loop().create_future())
        self._waiters[waiter.ticket] = waiter
        self._unsent.append(waiter)
        self._start_pump()
        asked_at = self._now()
        try:
            await waiter.granted
        finally:
            # a cancelled waiter's ticket costs one release, at most
            self._waiters.pop(waiter.ticket, None)
        return Permit(ticket=waiter.ticket, tokens=tokens, waited_s=self._now() - asked_at)

    def settle(self, permit: Permit, tokens: int | None) -> None:
        if tokens is not None and tokens != permit.tokens:
            self._give_back += permit.tokens - tokens
            self._start_pump()

    def rate_limited(self, permit: Permit, retry_after_s: float | None) -> None:
        pause_s = DEFAULT_PAUSE_S if retry_after_s is None or retry_after_s <= 0 else min(retry_after_s, MAX_PAUSE_S)
        self._pause_ms = max(self._pause_ms, int(pause_s * 1000))
        self._count_429 += 1
        self.settle(permit, 0)
        self._start_pump()

    def _start_pump(self) -> None:
        self._wake.set()
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run(), name="limiter-pump")

    async def _run(self) -> None:
        away = False
        while not self._closed:
            self._wake.clear()
            try:
                # others may release our tickets, give tokens back or shorten the wait: look often
                sleep_s = min(await self._step(), MAX_SLEEP_S)
                away = False
            except (errors.RedisError, OSError) as error:
                # fail closed: while nobody counts, nobody calls
                if not away:
                    log.warning("limiter waits", extra={"event": "limiter-unavailable", "reason": str(error)})
                away, sleep_s = True, OUTAGE_SLEEP_S
            if self._waiters:
                # while the head must wait, newcomers need not be told at once: they stand behind it
                await self._sleep(sleep_s)
            elif not away:
                await self._wake.wait()
            else:
                await self._sleep(sleep_s)

    async def _step(self) -> float:
        sent, self._unsent = [w for w in self._unsent if not w.granted.done()], []
        settled = (self._give_back, self._pause_ms, self._count_429)
        self._give_back, self._pause_ms, self._count_429 = 0.0, 0, 0
        try:
            reply = await self._call(sent, settled)
        except (errors.RedisError, OSError):
            self._unsent = sent + self._unsent
            self._give_back += settled[0]
            self._pause_ms, self._count_429 = max(settled[1], self._pause_ms), self._count_429 + settled[2]
            raise
        generation = reply[0].decode()
        if self._generation and generation != self._generation:
            # the state was lost with our tickets: queue again, in order, all that were not sent just now
            known = {w.ticket for w in sent}
            self._unsent = [
                w for w in self._waiters.values() if w.ticket not in known and w not in self._unsent
            ] + self._unsent
        self._generation = generation
        for ticket in reply[3:]:
            waiter = self._waiters.get(ticket.decode())
            if waiter and not waiter.granted.done():
                waiter.granted.set_result(None)
        if self._unsent:
            return 0.0
        return max(int(reply[1]) / 1000, MIN_SLEEP_S)

    async def _call(self, sent: list[_Waiter], settled: tuple[float, int, int]) -> list[Any]:
        requests, tokens = self._buckets
        give_back, pause_ms, count_429 = settled
        tickets = [part for waiter in sent for part in (waiter.ticket, waiter.tokens)]
        return await self._script(  # type: ignore[no-any-return]
            keys=self._keys,
            args=[
                self._process,
                requests.refill_per_s,
                requests.burst,
                tokens.refill_per_s,
                tokens.burst,
                give_back,
                self._generation,
                pause_ms,
                count_429,
                self._new_token(),
                *tickets,
            ],
        )

    async def stats(self) -> LimiterStats:
        state: dict[Any, Any] = await self._redis.hgetall(self._keys[0])
        values = {key.decode(): value.decode() for key, value in state.items()}
        return LimiterStats(
            waiting=int(await self._redis.llen(self._keys[1])),
            released=int(values.get("released", 0)),
            paused_s=max(0.0, float(values.get("paused_until", 0)) / 1000 - self._now()),
            count_429=int(values.get("count_429", 0)),
        )

    async def close(self) -> None:
        self._closed = True
        self._wake.set()
        if self._pump:
            self._pump.cancel()
            # bounded: a cancellation that meets a reply of Redis can be lost inside its client; the flag ends the pump then
            await asyncio.wait({self._pump}, timeout=CLOSE_WITHIN_S)


def limiter_keys(key: str) -> list[str]:
    """State, FIFO and prefix of the grants. The name is hashed: it holds what users call their accounts."""
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return [f"qe:limit:{{{digest}}}", f"qe:limit:{{{digest}}}:fifo", f"qe:limit:{{{digest}}}:grants:"]
