"""The limiter of one process: its waiters, and the pump that carries them all in one call."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

import redis.exceptions as errors
from aiolimiter import AsyncLimiter
from redis.asyncio import Redis

from queue_eval.core.bucket import MOST_JITTER_S
from queue_eval.core.limits import NOTHING, Charge, Lane
from queue_eval.limiter.keys import LimiterKeys
from queue_eval.limiter.lateness import Lateness
from queue_eval.limiter.outage import OutageShare
from queue_eval.limiter.pump import Grant, News, Pump, Reply, Step
from queue_eval.limiter.round_trips import RoundTrips
from queue_eval.limiter.waiter import TOO_CHEAP, Granted, Waiter
from queue_eval.limiter.wakes import Wakes
from queue_eval.ports import Now, Permit
from queue_eval.redis_faults import Fault, fault, refusal

log = logging.getLogger("queue_eval.limiter")

LOOK_S = 0.25  # with calls waiting, though Redis tells when one is released
LOOKS_PER_S = 2000.0  # of all processes together: many look less often,
MOST_LOOK_S = 0.4  # but so often that Redis takes none of them for gone
UNTOLD_LOOK_S = 0.1  # where Redis cannot tell
UNTOLD_FULL_LOOK_S = 0.05  # a place may become free by a call of another process
IDLE_LOOK_S = 0.5  # with calls under way but none waiting: stay known, and know how many we are
IDLE_AFTER_S = 10.0
IN_FLIGHT_LOOK_S = 1.0  # a process that is not seen for three seconds has nothing in flight
IDLE_LOOK_LATER_S = 20.0  # a run that is not seen for a minute binds nobody any more
TELL_HEADERS_S = 5.0
GATHER_S = 0.02  # settlements that come together go together
SETTLED_WITHIN_S = 0.01  # while calls wait
SLOW_AFTER_S = 5.0  # without a reply; then the log says so
OUTAGE_LOOK_S = 0.5
OUTAGE_TICK_S = 0.02
MAX_PAUSE_S = 60.0
CLOSE_WITHIN_S = 2.0


class SharedLimiter:
    """First come, first served over all processes that name the same key, by lanes. Without Redis: a safe share for a while, then nothing."""

    def __init__(
        self, redis: Redis, *, key: str, process: str, lane: Lane, adjusts: bool, now: Now, new_token: Callable[[], str]
    ) -> None:
        """`process`: a name that no other process has. `adjusts`: the provider charges what a call really used, so the rest is given back."""
        self._redis = redis
        self._keys = LimiterKeys(key)
        self._pump = Pump(redis, self._keys, lane)
        self._name = process
        self._adjusts = adjusts
        self._window_s = lane.counting.window_s
        self._timeout_of_calls_s = lane.in_flight.timeout_s
        self._obeys_headers = lane.obeys_headers
        self._now = now
        self._new_token = new_token
        self._outage = OutageShare()
        self._lateness = Lateness(now)
        self._guard: AsyncLimiter | None = None
        self._waiters: dict[str, Waiter] = {}  # in the order of arrival
        self._unsent: list[Waiter] = []
        self._abandoned: dict[str, Charge] = {}  # cancelled while they stood in the queue
        self._unsettled: set[tuple[str, int]] = set()  # generation and serial of permits
        self._in_flight = 0
        self._reply: Reply | None = None  # the last one
        self._had_in_flight = 0  # when Redis last answered
        self._alone = 0  # permits by the share of an outage
        self._generation = ""
        self._news = News()
        self._known_headers: dict[str, float] = {}
        self._told_headers_at = 0.0
        self._lives = 0
        self._rests = False  # Redis knows that this process looks seldom
        self._known = False
        self._step: Step | None = None  # under way, or to be sent again
        self._trips = RoundTrips()
        self._is_slow = False  # and the log says so
        self._number = 0
        self._acked = 0
        self._tickets = 0
        self._busy_at = 0.0
        self._closed = False
        self._urgent = asyncio.Event()
        self._asked = asyncio.Event()
        self._wakes = Wakes(redis, self._keys.grants(process), self._urgent.set)
        self._settling: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    async def acquire(self, charge: Charge, again: Callable[[], Charge] | None = None) -> Permit:
        self._tickets += 1
        waiter = Waiter(str(self._tickets), charge, asyncio.get_running_loop().create_future(), again)
        alone = not self._waiters
        self._waiters[waiter.ticket] = waiter
        self._unsent.append(waiter)
        self._asked.set()
        asked_at = self._now()
        # while an earlier one waits, the pump looks soon enough
        self._keep_pumping(urgent=alone)
        try:
            granted = await waiter.granted
            self._lateness.note(self._now() - granted.late_since)
            if self._guard:
                # never binds while the limiter keeps its word: no single process may exceed what is allowed to all
                await self._guard.acquire()
        except asyncio.CancelledError:
            self._abandon(waiter)
            raise
        self._unsettled.add((granted.generation, granted.serial))
        return Permit(
            charge=waiter.charge,
            waited_s=self._now() - asked_at,
            granted_at=self._now(),
            generation=granted.generation,
            serial=granted.serial,
        )

    def _abandon(self, waiter: Waiter) -> None:
        if waiter.granted.done() and not waiter.granted.cancelled() and not waiter.granted.exception():
            self._in_flight -= 1
            self._give_back(waiter.charge, waiter.granted.result().generation)
        elif self._waiters.pop(waiter.ticket, None):
            if waiter in self._unsent:
                self._unsent.remove(waiter)
            else:
                self._abandoned[waiter.ticket] = waiter.charge

    def settle(self, permit: Permit, used: Charge, *, answered: bool = False) -> None:
        """NOTHING is a request that never left: its permit is given back whatever the provider's policy."""
        if (permit.generation, permit.serial) not in self._unsettled:
            return
        self._unsettled.discard((permit.generation, permit.serial))
        self._in_flight -= 1
        if answered:
            self._news.answers += 1
            self._news.load += (self._now() - permit.granted_at) / self._timeout_of_calls_s
        if self._reply and self._reply.is_bounded:
            self._soon()  # another process may wait for this place
        if self._adjusts or used == NOTHING:
            late = self._now() - permit.granted_at > self._window_s
            self._give_back(permit.charge - used, permit.generation, late=late)

    def _give_back(self, charge: Charge, generation: str, *, late: bool = False) -> None:
        # what was charged to a state that is gone, or to nobody's, is nobody's to give back
        if generation and generation == self._generation and charge != NOTHING:
            if late:
                self._news.late += charge
            else:
                self._news.back += charge
            self._keep_pumping(urgent=False)
            if self._waiters:
                self._soon()  # the sooner, the less a window's use strays from the rate

    def _soon(self) -> None:
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(SETTLED_WITHIN_S, self._settle)

    def _settle(self) -> None:
        self._settling = None
        self._urgent.set()

    def rate_limited(self, permit: Permit, retry_after_s: float | None) -> None:
        asked_s = min(max(retry_after_s or 0.0, 0.0), MAX_PAUSE_S)
        serial = permit.serial if permit.generation == self._generation else 0
        self._news.refuse(serial, int(asked_s * 1000))
        self._outage.pause(self._now() + (asked_s or 1.0))
        self.settle(permit, Charge(requests=permit.charge.requests))
        self._keep_pumping(urgent=True)

    @property
    def output_tokens(self) -> float | None:
        return self._reply.output_tokens or None if self._reply else None

    def answers_take(self, output_tokens: float) -> None:
        told = self.output_tokens or 0.0
        if not told / TOO_CHEAP <= output_tokens <= told * TOO_CHEAP:
            self._news.output_tokens = output_tokens
            self._keep_pumping(urgent=False)

    def timed_out(self, permit: Permit) -> None:
        self._news.timeouts += 1
        if permit.generation == self._generation:
            self._news.timeouts_serial = max(self._news.timeouts_serial, permit.serial)
        self.settle(permit, permit.charge)
        self._keep_pumping(urgent=True)

    def observed(self, per_minute: dict[str, float]) -> None:
        is_news = any(self._known_headers.get(d) != limit for d, limit in per_minute.items())
        is_due = self._now() - self._told_headers_at >= TELL_HEADERS_S  # another process may have heard otherwise since
        if per_minute and (is_news or is_due) and self._obeys_headers:
            self._news.headers |= per_minute
            self._known_headers |= per_minute
            self._told_headers_at = self._now()
            self._keep_pumping(urgent=is_news)

    # --- the pump ----------------------------------------------------------------------------------------------------

    def _keep_pumping(self, *, urgent: bool) -> None:
        self._busy_at = self._now()
        if urgent or not self._waiters:
            self._urgent.set()
        if not self._closed and (self._task is None or self._task.done()):
            self._wakes.begin()
            self._task = asyncio.create_task(self._run(), name="limiter-pump")
            self._task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """It ends by itself only through a defect; nobody may wait for it then."""
        if task.cancelled() or not (error := task.exception()):
            return
        for waiter in self._waiters.values():
            if not waiter.granted.done():
                waiter.granted.set_exception(error)
        self._waiters.clear()

    async def _run(self) -> None:
        next_try_at = 0.0
        while not self._closed:
            self._urgent.clear()
            sleep_s = OUTAGE_TICK_S
            if not self._outage.is_away or self._now() >= next_try_at:
                try:
                    if self._outage.is_away:
                        await self._ping()
                    sleep_s = await self._turn()
                except TimeoutError:
                    if not self._outage.is_away:
                        continue  # nothing is released meanwhile
                    next_try_at = self._now() + OUTAGE_LOOK_S
                except (errors.RedisError, OSError) as error:
                    what = fault(error)
                    if what is Fault.REFUSED and not self._known:
                        raise refusal(error) from error
                    if what is Fault.DEFECT:
                        raise
                    next_try_at = self._now() + OUTAGE_LOOK_S
            if self._outage.is_away:
                self._release_by_share()
                await asyncio.sleep(OUTAGE_TICK_S)
            else:
                await self._until_urgent(sleep_s)

    async def _ping(self) -> None:
        """A step that is broken off may have been carried out: no other is sent before Redis is there."""
        try:
            async with asyncio.timeout(self._trips.timeout_s):
                await self._redis.ping()
        except (TimeoutError, errors.TimeoutError):
            self._trips.wait_longer()
            raise TimeoutError from None

    def _lost(self, error: Exception) -> None:
        # a reply, be it an error, says that nothing was done
        if self._outage.lost(self._now(), may_be_done=not isinstance(error, errors.ResponseError)):
            log.warning("limiter without Redis", extra={"event": "limiter-unavailable", "reason": str(error)})

    def _unanswered(self) -> None:
        self._outage.unanswered()
        self._trips.wait_longer()
        waited_s = self._trips.unanswered_s(self._now())
        if waited_s >= SLOW_AFTER_S and not self._is_slow:
            self._is_slow = True
            reason = f"no answer within {waited_s:.0f} s"
            log.warning("limiter without Redis", extra={"event": "limiter-unavailable", "reason": reason})

    async def _until_urgent(self, sleep_s: float) -> None:
        idle = not self._waiters
        if idle:
            rest_s = IN_FLIGHT_LOOK_S if self._in_flight else IDLE_LOOK_LATER_S
            sleep_s = rest_s if self._rests else max(IDLE_LOOK_S, self._look_s)
        try:
            async with asyncio.timeout(sleep_s):
                await self._urgent.wait()
        except TimeoutError:
            return
        if idle and not self._unsent and not self._news.refused:
            # a case's next call follows the settlement of its last one: it must not wait for others' settlements
            self._asked.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHER_S):
                    await self._asked.wait()

    async def _turn(self) -> float:
        """One step; seconds until the next is worth it."""
        step = self._step = self._step or self._next_step()
        sent_at = self._now()
        self._trips.sent(sent_at)
        try:
            async with asyncio.timeout(self._trips.timeout_s):
                reply = await self._pump.step(step)
        except (TimeoutError, errors.TimeoutError):
            self._unanswered()
            raise TimeoutError from None
        except (errors.RedisError, OSError) as error:
            self._lost(error)
            raise
        again, self._step = self._trips.tries > 1, None
        self._trips.answered(self._now())
        if reply is None:
            self._rejoin(step, may_be_done=again)
            return 0.0
        self._known, self._rests = True, not step.takes_share and not step.held_share
        if self._outage.is_away or self._is_slow:
            self._is_slow = False
            log.warning("limiter has Redis again", extra={"event": "limiter-available"})
        self._took(reply, step, sent_at)
        self._outage.heard(reply, sent_at=sent_at, now=self._now())
        self._news.back = self._news.back - self._outage.returned()
        return self._worth_waiting_s(reply)

    def _next_step(self) -> Step:
        if self._settling:
            self._settling.cancel()
            self._settling = None
        sent, self._unsent = self._unsent, []
        self._number += 1
        is_busy = bool(self._waiters) or self._now() - self._busy_at < IDLE_AFTER_S
        step = Step(
            process=f"{self._name}.{self._lives}",
            name=self._name,
            takes_share=is_busy and self._trips.may_share,
            held_share=self._outage.held(self._now()),
            join=not self._known,
            new=self._lives == 0,
            number=self._number,
            acked=self._acked,
            generation=self._generation,
            fresh=f"g{self._new_token()}",
            lateness_s=round(self._lateness.seconds, 4),
            silent_s=self._trips.silent_s(self._look_s),
            news=self._news,
            waiters=[(waiter.ticket, waiter.charge) for waiter in sent],
            in_flight=self._in_flight,
        )
        self._news = News()
        return step

    def _rejoin(self, step: Step, *, may_be_done: bool) -> None:
        """Our tickets are gone: with the state, or because we were silent too long. All go again, in order, under a new name."""
        self._lives += 1
        self._known, self._acked = False, 0
        self._abandoned.clear()
        self._unsent = list(self._waiters.values())
        for waiter in self._unsent:
            waiter.before = None
        if may_be_done:
            # it was sent twice: what it gave back must not be given back again
            step.news.back = step.news.late = NOTHING
        self._news.add(step.news)
        self._news.headers = dict(self._known_headers)

    def _took(self, reply: Reply, step: Step, sent_at: float) -> None:
        if reply.generation != self._generation:
            self._generation = reply.generation
            self._news.back = self._news.late = NOTHING
        before = reply.base
        for ticket, charge in step.waiters:
            if waiter := self._waiters.get(ticket):
                waiter.before = before
            before = (before[0] + 1, before[1] + charge.input_tokens, before[2] + charge.output_tokens)
        self._reply, self._acked = reply, len(reply.grants)
        for grant in reply.grants:
            self._grant(grant, sent_at)
        self._had_in_flight = self._in_flight
        self._guard_as(reply)

    def _guard_as(self, reply: Reply) -> None:
        """A leaky bucket that fills at the limit's rate and holds a window's worth, or the burst where that is more."""
        per_s = reply.limit.get("requests", 0.0) / 60
        holds = max(1.0, per_s * reply.window_s, reply.burst.get("requests", 0.0))
        if not per_s:
            self._guard = None
        elif self._guard is None or (self._guard.max_rate, self._guard.time_period) != (holds, holds / per_s):
            self._guard = AsyncLimiter(holds, holds / per_s)

    def _grant(self, grant: Grant, sent_at: float) -> None:
        late_since = sent_at - grant.age_s
        late_s = self._now() - late_since
        stale = late_s > grant.may_take_s
        if (charge := self._abandoned.pop(grant.ticket, None)) is not None:
            # it fills the bucket and no more: what it would have taken may have been released since, by the share
            self._give_back(charge, self._generation, late=True)
        waiter = self._waiters.get(grant.ticket)
        if waiter is None:
            return
        if stale:
            # it would come on top of what is released now
            if not self._outage.is_away and late_s <= MOST_JITTER_S:
                self._lateness.note(late_s)  # so that the bucket allows for the next; for an outage or a halt it cannot
            self._give_back(waiter.charge, self._generation, late=True)
            self._queue_again(waiter)
            return
        if self._reply and waiter.is_too_cheap(self._reply.limit):
            self._give_back(waiter.charge, self._generation)
            self._queue_again(waiter)
            return
        del self._waiters[grant.ticket]
        if waiter.granted.done():
            # cancelled in this very turn of the loop
            self._give_back(waiter.charge, self._generation)
        else:
            self._in_flight += 1
            waiter.granted.set_result(Granted(self._generation, grant.serial, late_since))

    def _queue_again(self, waiter: Waiter) -> None:
        """Put a call behind the others, at its present price. The order here is that of Redis' queue."""
        waiter.charge, waiter.before = waiter.charge_now, None
        self._waiters[waiter.ticket] = self._waiters.pop(waiter.ticket)
        self._unsent.append(waiter)

    def _worth_waiting_s(self, reply: Reply) -> float:
        if self._unsent or self._news.refused:
            return 0.0
        is_told = self._wakes.listens
        look_s = self._look_s if is_told else UNTOLD_LOOK_S
        if reply.is_full:
            return look_s if is_told else UNTOLD_FULL_LOOK_S
        head = next((waiter for waiter in self._waiters.values() if waiter.before), None)
        return min(reply.wait_s(head.before, head.charge), look_s) if head and head.before else look_s

    @property
    def _look_s(self) -> float:
        processes = self._reply.processes if self._reply else 0
        return min(max(LOOK_S, processes / LOOKS_PER_S), MOST_LOOK_S)

    def _release_by_share(self) -> None:
        """In order. Those that stood in Redis' queue are released there once more, find nobody, and are given back."""
        for waiter in list(self._waiters.values()):
            now = self._now()
            # together they have as many in flight as when Redis was there
            if self._reply and self._reply.is_bounded and self._in_flight >= self._had_in_flight:
                return
            charge = waiter.charge_now
            if not self._outage.take(charge, now):
                return
            del self._waiters[waiter.ticket]
            if waiter in self._unsent:
                self._unsent.remove(waiter)
            else:
                self._abandoned[waiter.ticket] = waiter.charge  # as Redis knows it
            waiter.charge = charge
            if not waiter.granted.done():
                self._in_flight += 1
                self._alone += 1
                waiter.granted.set_result(Granted("", -self._alone, now))

    async def close(self) -> None:
        self._closed = True
        self._wakes.end()
        self._urgent.set()
        if self._task:
            self._task.cancel()
            # bounded: a cancellation that meets a reply of Redis can be lost inside its client; the flag ends the pump then
            await asyncio.wait({self._task}, timeout=CLOSE_WITHIN_S)
        if self._known and not self._outage.is_away:
            await self._leave()

    async def _leave(self) -> None:
        """Our tickets count for nothing from now on, and the others' share of an outage grows."""
        name = f"{self._name}.{self._lives}"
        try:
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self._redis.hdel(self._keys.processes, name)
                await self._redis.hdel(self._keys.in_flight, self._name)
                await self._redis.hdel(self._keys.shares, self._name)
                await self._redis.delete(self._keys.grants(name))
        except (errors.RedisError, OSError, TimeoutError):
            return  # it is found out
