"""The loop that keeps one process and the limiter's state in Redis in step: one request carries all its calls."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

import redis.exceptions as errors
from redis.asyncio import Redis

from queue_eval.core.bucket import MOST_JITTER_S
from queue_eval.core.limits import NO_CHARGE, Charge, Lane
from queue_eval.limiter import looks
from queue_eval.limiter.keys import LimiterKeys
from queue_eval.limiter.lateness import Lateness
from queue_eval.limiter.outage import OutageShare
from queue_eval.limiter.round_trips import RoundTrips
from queue_eval.limiter.sync_script import Feedback, Grant, SyncReply, SyncRequest, SyncScript
from queue_eval.limiter.waiter import Granted
from queue_eval.limiter.waiters import Waiters
from queue_eval.limiter.wakes import Wakes
from queue_eval.ports.clock import Now
from queue_eval.redis_faults import Fault, fault, refusal

log = logging.getLogger("queue_eval.limiter")

GATHER_S = 0.02  # settlements that come together go together
SETTLED_WITHIN_S = 0.01  # while calls wait
SLOW_AFTER_S = 5.0  # without a reply; then it is logged
OUTAGE_LOOK_S = 0.5
OUTAGE_TICK_S = 0.02
CLOSE_WITHIN_S = 2.0


class Synchronizer:
    """Sends what this process has to report, and hands out what Redis released."""

    def __init__(
        self,
        redis: Redis,
        keys: LimiterKeys,
        *,
        process: str,
        lane: Lane,
        now: Now,
        new_token: Callable[[], str],
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._script = SyncScript(redis, keys, lane)
        self._process = process
        self._now = now
        self._new_token = new_token
        self.waiters = Waiters()
        self.outage = OutageShare()
        self.lateness = Lateness(now)
        self.feedback = Feedback()  # since the last request; what a request carries is in no other one
        self.reply: SyncReply | None = None  # the last one
        self.known_headers: dict[str, float] = {}  # limits per minute that this process has reported
        self.generation = ""  # of the state that the last reply came from: another one has forgotten all permits before
        self._incarnation = 0  # one more whenever Redis has forgotten this process: its old tickets count for nothing
        self._is_known = False  # Redis has this incarnation in its table
        self._queue = ""  # in which this process' calls stand: another one has begun without them
        self._rests = False  # Redis knows that this process looks seldom
        self._request: SyncRequest | None = None  # under way, or to be sent again unchanged
        self._number = 0  # of requests made; Redis carries out each number once
        self._acked = 0  # grants of the last reply: the next request lets Redis drop them
        self._had_in_flight = 0  # when Redis last replied: without Redis, no more than so many are in flight
        self._granted_by_share = 0  # permits without Redis; their serials are negative, and used once
        self._round_trips = RoundTrips()
        self._is_slow = False  # and that is logged
        self._busy_at = 0.0  # when this process last had something to report
        self._is_closed = False
        self._urgent = asyncio.Event()  # the next request is worth it now
        self._call_arrived = asyncio.Event()
        self._wakes = Wakes(redis, keys.grants(process), self._urgent.set)
        self._soon_timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_bounded(self) -> bool:
        """Whether calls in flight are bounded, as far as is known."""
        return self.reply is not None and self.reply.is_bounded

    def call_arrived(self, *, urgent: bool) -> None:
        self._call_arrived.set()
        self.keep_going(urgent=urgent)

    def keep_going(self, *, urgent: bool) -> None:
        """There is something to report. RuntimeError outside an event loop."""
        self._busy_at = self._now()
        if urgent or not self.waiters:
            self._urgent.set()
        if not self._is_closed and (self._task is None or self._task.done()):
            self._wakes.begin()
            self._task = asyncio.create_task(self._run(), name="limiter-sync")
            self._task.add_done_callback(self._ended)

    def soon(self) -> None:
        """Report within SETTLED_WITHIN_S."""
        if self._soon_timer is None:
            self._soon_timer = asyncio.get_running_loop().call_later(SETTLED_WITHIN_S, self._is_due)

    def _is_due(self) -> None:
        self._soon_timer = None
        self._urgent.set()

    def give_back(self, charge: Charge, generation: str, *, late: bool = False) -> None:
        """Return what a permit of this generation did not use. `late`: after the provider's window."""
        # what was charged to a state that is gone, or to the share of an outage, is not Redis' to take back
        if generation and generation == self.generation and charge != NO_CHARGE:
            if late:
                self.feedback.late += charge
            else:
                self.feedback.back += charge
            self.keep_going(urgent=False)
            if self.waiters:
                self.soon()  # the sooner, the less a window's use strays from the rate

    # --- the loop ----------------------------------------------------------------------------------------------------

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """The loop ends by itself only through a defect; no call may wait for it then."""
        if not task.cancelled() and (error := task.exception()):
            self.waiters.fail(error)

    async def _run(self) -> None:
        next_try_at = 0.0
        while not self._is_closed:
            self._urgent.clear()
            sleep_s = OUTAGE_TICK_S
            if not self.outage.is_away or self._now() >= next_try_at:
                try:
                    if self.outage.is_away:
                        await self._ping()
                    sleep_s = await self._synchronize()
                except TimeoutError:
                    if not self.outage.is_away:
                        continue  # nothing is released meanwhile
                    next_try_at = self._now() + OUTAGE_LOOK_S
                except (errors.RedisError, OSError) as error:
                    what = fault(error)
                    if what is Fault.REFUSED and not self._is_known:
                        raise refusal(error) from error
                    if what is Fault.DEFECT:
                        raise
                    next_try_at = self._now() + OUTAGE_LOOK_S
            if self.outage.is_away:
                self._grant_by_share()
                await asyncio.sleep(OUTAGE_TICK_S)
            else:
                await self._until_urgent(sleep_s)

    async def _ping(self) -> None:
        """A request that is broken off may have been carried out: no other is sent before Redis is there."""
        try:
            async with asyncio.timeout(self._round_trips.timeout_s):
                await self._redis.ping()
        except (TimeoutError, errors.TimeoutError):
            self._round_trips.wait_longer()
            raise TimeoutError from None

    async def _until_urgent(self, sleep_s: float) -> None:
        idle = not self.waiters
        if idle:
            sleep_s = looks.idle_s(self._processes, rests=self._rests, in_flight=self.waiters.in_flight)
        try:
            async with asyncio.timeout(sleep_s):
                await self._urgent.wait()
        except TimeoutError:
            return
        if idle and not self.waiters.has_unsent and not self.feedback.refused:
            # a case's next call follows the settlement of its last one: it must not wait for others' settlements
            self._call_arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHER_S):
                    await self._call_arrived.wait()

    async def _synchronize(self) -> float:
        """Send one request; return the seconds until the next is worth it. TimeoutError without a reply in time."""
        request = self._request = self._request or self._next_request()
        sent_at = self._now()
        self._round_trips.sent(sent_at)
        try:
            async with asyncio.timeout(self._round_trips.timeout_s):
                reply = await self._script.run(request)
        except (TimeoutError, errors.TimeoutError):
            self._note_unanswered()
            raise TimeoutError from None
        except (errors.RedisError, OSError) as error:
            self._note_lost(error)
            raise
        sent_again, self._request = self._round_trips.tries > 1, None
        self._round_trips.answered(self._now())
        if reply is None:
            self._rejoin(request, may_be_done=sent_again)
            return 0.0
        self._is_known, self._rests = True, not request.takes_share and not request.held_share
        if self.outage.is_away or self._is_slow:
            self._is_slow = False
            log.warning("the limiter has Redis again", extra={"event": "limiter_available"})
        self._take(reply, request, sent_at)
        self.outage.redis_replied(reply, sent_at=sent_at, now=self._now())
        self.feedback.back = self.feedback.back - self.outage.returned()
        return self._next_look_s(reply)

    def _note_lost(self, error: Exception) -> None:
        # after a reply, be it an error, it is known that nothing was done
        if self.outage.lost(self._now(), may_be_done=not isinstance(error, errors.ResponseError)):
            _log_unavailable(str(error))

    def _note_unanswered(self) -> None:
        self.outage.unanswered()
        self._round_trips.wait_longer()
        waited_s = self._round_trips.unanswered_s(self._now())
        if waited_s >= SLOW_AFTER_S and not self._is_slow:
            self._is_slow = True
            _log_unavailable(f"no answer within {waited_s:.0f} s")

    @property
    def _name(self) -> str:
        return f"{self._process}.{self._incarnation}"

    def _next_request(self) -> SyncRequest:
        if self._soon_timer:
            self._soon_timer.cancel()
            self._soon_timer = None
        sent = self.waiters.take_unsent()
        self._number += 1
        is_busy = bool(self.waiters) or self._now() - self._busy_at < looks.IDLE_AFTER_S
        request = SyncRequest(
            process=self._name,
            name=self._process,
            takes_share=is_busy and self._round_trips.may_share,
            held_share=self.outage.held(self._now()),
            join=not self._is_known,
            new=self._incarnation == 0,
            number=self._number,
            acked=self._acked,
            generation=self.generation,
            fresh=f"g{self._new_token()}",
            lateness_s=round(self.lateness.seconds, 4),
            silent_s=self._round_trips.silent_s(looks.waiting_s(self._processes)),
            feedback=self.feedback,
            waiters=[(waiter.ticket, waiter.charge) for waiter in sent],
            in_flight=self.waiters.in_flight,
        )
        self.feedback = Feedback()
        return request

    def _rejoin(self, request: SyncRequest, *, may_be_done: bool) -> None:
        """Redis lost its state, or this process was silent for too long."""
        self._send_all_again()
        if may_be_done:
            # it was sent twice: what it gave back must not be given back again
            request.feedback.back = request.feedback.late = NO_CHARGE
        self.feedback.add(request.feedback)
        self.feedback.headers = dict(self.known_headers)

    def _send_all_again(self) -> None:
        """Under a new name: tickets of the old one count for nothing."""
        self._incarnation += 1
        self._is_known, self._acked = False, 0
        self.waiters.send_all_again()

    # --- what Redis released -----------------------------------------------------------------------------------------

    def _take(self, reply: SyncReply, request: SyncRequest, sent_at: float) -> None:
        if reply.generation != self.generation:
            self.generation = reply.generation
            self.feedback.back = self.feedback.late = NO_CHARGE
        before = reply.base
        for ticket, charge in request.waiters:
            if waiter := self.waiters.find(ticket):
                waiter.before = before
            before = (before[0] + 1, before[1] + charge.input_tokens, before[2] + charge.output_tokens)
        self.reply, self._acked = reply, len(reply.grants)
        for grant in reply.grants:
            self._grant(grant, reply, sent_at)
        self._had_in_flight = self.waiters.in_flight
        if reply.queue != self._queue and not request.join:
            self._send_all_again()
        self._queue = reply.queue

    def _grant(self, grant: Grant, reply: SyncReply, sent_at: float) -> None:
        """Hand a released call its permit. One that is too late, or too cheap, is given back and queues again."""
        late_since = sent_at - grant.age_s
        late_s = self._now() - late_since
        if (charge := self.waiters.claim_abandoned(grant.ticket)) is not None:
            # it fills the bucket and no more: what it would have taken may have been released since, by the share
            self.give_back(charge, self.generation, late=True)
        waiter = self.waiters.find(grant.ticket)
        if waiter is None:
            return
        if late_s > grant.may_take_s:
            # it would come on top of what is released now
            if not self.outage.is_away and late_s <= MOST_JITTER_S:
                self.lateness.note(late_s)  # so that the bucket allows for the next; for an outage or a halt it cannot
            self.give_back(waiter.charge, self.generation, late=True)
            self.waiters.queue_again(waiter)
        elif waiter.is_too_cheap(reply.limit):
            self.give_back(waiter.charge, self.generation)
            self.waiters.queue_again(waiter)
        elif not self.waiters.grant(waiter, Granted(self.generation, grant.serial, late_since)):
            self.give_back(waiter.charge, self.generation)

    def _grant_by_share(self) -> None:
        """Hand out permits in order. Calls that stood in Redis' queue are released there later, and given back."""
        for waiter in self.waiters:
            now = self._now()
            # all processes together have no more in flight than when Redis was there
            if self.is_bounded and self.waiters.in_flight >= self._had_in_flight:
                return
            charge = waiter.charge_now
            if not self.outage.take(charge, now):
                return
            self.waiters.leave(waiter)
            waiter.charge = charge
            self._granted_by_share += 1
            self.waiters.grant(waiter, Granted("", -self._granted_by_share, now))

    def _next_look_s(self, reply: SyncReply) -> float:
        """Return the seconds until the next request is worth it, if nothing wakes this process."""
        if self.waiters.has_unsent or self.feedback.refused:
            return 0.0
        longest_s = looks.with_calls_waiting_s(reply, is_woken=self._wakes.listens)
        head = None if reply.is_full else self.waiters.first_sent
        return min(reply.wait_s(head.before, head.charge), longest_s) if head and head.before else longest_s

    @property
    def _processes(self) -> int:
        return self.reply.processes if self.reply else 0

    # --- the end -----------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        self._is_closed = True
        self._wakes.end()
        self._urgent.set()
        if self._task:
            self._task.cancel()
            # bounded: a cancellation that meets a reply of Redis can be lost inside its client; the flag ends the loop
            # then
            await asyncio.wait({self._task}, timeout=CLOSE_WITHIN_S)
        if self._is_known and not self.outage.is_away:
            await self._leave()

    async def _leave(self) -> None:
        """Take this process out of Redis' tables: its tickets count for nothing, and the others' share of an outage
        grows.
        """
        try:
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self._redis.hdel(self._keys.processes, self._name)
                await self._redis.hdel(self._keys.in_flight, self._process)
                await self._redis.hdel(self._keys.shares, self._process)
                await self._redis.delete(self._keys.grants(self._name))
        except (errors.RedisError, OSError, TimeoutError):
            return  # the script finds out by its silence


def _log_unavailable(reason: str) -> None:
    log.warning(
        "the limiter has no Redis; calls go by a safe share, then not at all",
        extra={"event": "limiter_unavailable", "reason": reason},
    )
