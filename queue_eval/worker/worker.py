"""The loop: takes as many cases as there is room for, and leaves when the run is drained, never when the queue is
empty.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from queue_eval.core.attempt import Backoff
from queue_eval.core.errors import (
    EXIT_ABORTED,
    EXIT_DRAINED,
    EXIT_INTERRUPTED,
    AccessError,
    NoInputError,
    QueueEvalError,
    UnavailableError,
)
from queue_eval.core.run import RunState
from queue_eval.ports.clock import Clock
from queue_eval.ports.queue import Claim, Claiming, Claims
from queue_eval.ports.scorer import Scorer
from queue_eval.retry_while_unavailable import RetryWhileUnavailable
from queue_eval.worker.alive import Alive
from queue_eval.worker.case_executor import CaseExecutor
from queue_eval.worker.heartbeat import Heartbeat
from queue_eval.worker.in_flight import InFlight
from queue_eval.worker.prober import Prober
from queue_eval.worker.watchdog import Watchdog

T = TypeVar("T")

log = logging.getLogger("queue_eval.worker")

CLAIM_AT_ONCE = 64  # cases by one call: bounds how long it blocks the server
FULL_LOOK_S = 2.0  # the run may be tuned, held or over, and others' leases may have ended
IDLE_BACKOFF = Backoff(base_s=0.05, max_s=1.0)
RELEASE_TIMEOUT_S = 5.0
STOPPED_CLAIM_S = 2.0  # for a claim that is on its way when this worker is to leave


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    cases: int
    size_bytes: int
    grace_s: float  # for what is in flight when the worker must leave


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """How other processes know that this worker is alive."""

    lease_s: float
    watchdog: Watchdog
    alive_file: Path | None = None  # touched while the worker gets on


class Worker:
    def __init__(
        self,
        *,
        queue: Claiming,
        executor: CaseExecutor,
        scorer: Scorer,
        prober: Prober,
        retrying: RetryWhileUnavailable,
        capacity: Capacity,
        liveness: Liveness,
        clock: Clock,
        unknown_for_s: float = 0.0,
    ) -> None:
        """`unknown_for_s`: how long to wait for a run that Redis does not know, and that is about to be enqueued."""
        self._queue = queue
        self._executor = executor
        self._prober = prober
        self._retrying = retrying
        self._capacity = capacity
        self._cases = capacity.cases  # in flight at most; `tune` changes it
        self._clock = clock
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()  # a case ended, or this worker is to stop
        self._in_flight = InFlight(executor, ended=self._case_ended)
        self._failure: QueueEvalError | None = None
        self._known = False  # the queue knew the run once
        self._unknown_until = clock.now() + unknown_for_s
        self._watchdog = liveness.watchdog
        alive = (
            Alive(
                liveness.alive_file,
                resting=lambda: not self._in_flight or scorer.waiting > 0,
                ended=lambda: self._in_flight.cases_ended + scorer.calls_ended,
            )
            if liveness.alive_file
            else None
        )
        self._heartbeat = Heartbeat(
            queue,
            self._in_flight,
            scorer,
            beat=alive.beat if alive else lambda: None,
            turned=liveness.watchdog.turned,
            lease_s=liveness.lease_s,
            clock=clock,
        )

    def stop(self) -> None:
        """Claim no more; finish what is in flight, or release it when the grace period ends."""
        self._stop.set()
        self._changed.set()

    async def run(self) -> int:
        """The exit code: 0 only when the run is drained."""
        heartbeat = asyncio.create_task(self._heartbeat.run(), name="heartbeat")
        heartbeat.add_done_callback(self._heartbeat_ended)
        try:
            with self._watchdog:
                return await self._until_over()
        finally:
            await self._in_flight.release_all(timeout_s=RELEASE_TIMEOUT_S)
            heartbeat.cancel()
            # bounded: a cancellation that meets a reply of Redis can be lost inside its client
            await asyncio.wait({heartbeat}, timeout=RELEASE_TIMEOUT_S)
            with contextlib.suppress(UnavailableError, AccessError):
                await self._queue.leave()

    async def _until_over(self) -> int:
        idle = 0
        while not self._stop.is_set():
            if self._failure:
                raise self._failure
            self._changed.clear()  # what ends while we ask is worth asking again
            claims = await self._unless_stopped(self._claimed(), patience_s=STOPPED_CLAIM_S)
            if claims is None:
                break
            if claims.state is RunState.ABORTED:
                return EXIT_ABORTED  # what is held is released: no report waits for it
            for claim in claims.claims:
                self._in_flight.start(claim)
            if claims.state.over and not self._in_flight:
                return EXIT_DRAINED
            if claims.hold:
                await self._unless_stopped(self._probed(claims.hold), patience_s=0.0)
            full = len(self._in_flight) >= self._cases
            idle = 0 if claims.claims or full else idle + 1
            await self._until_worth_claiming(idle)
        return await self._drained_within_grace()

    async def _unless_stopped(self, work: Awaitable[T], *, patience_s: float) -> T | None:
        """Return None when this worker is to leave while Redis, the store or the judge is unavailable."""
        working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({working}, timeout=patience_s)
        finally:
            stopping.cancel()
            working.cancel()
            # bounded: it stores what it spent, and its store may be unavailable too
            await asyncio.wait({working}, timeout=RELEASE_TIMEOUT_S)
        return working.result() if working.done() and not working.cancelled() else None

    async def _probed(self, hold: str) -> None:
        await self._retrying.call(lambda: self._prober.try_to_lift(hold))

    async def _claimed(self) -> Claims:
        room = max(0, min(self._cases - len(self._in_flight), CLAIM_AT_ONCE))
        try:
            claims = await self._retrying.call(
                lambda: self._queue.claim(
                    room,
                    used_bytes=self._in_flight.size_bytes,
                    capacity_bytes=self._capacity.size_bytes,
                    has_quarantined=self._in_flight.has_quarantined,
                )
            )
        except NoInputError:
            if not self._known and self._clock.now() >= self._unknown_until:
                raise
            # not enqueued yet, or Redis was wiped and the producer, resumed, brings the rest of the run back
            return Claims(state=RunState.OPEN, hold=None, concurrency=None, claims=())
        self._known = True
        if claims.concurrency:
            # the run was tuned; what is in flight already is finished
            self._cases = claims.concurrency
        return claims

    def _case_ended(self, claim: Claim, error: BaseException | None) -> None:
        self._changed.set()
        if isinstance(error, QueueEvalError):
            # the store or the configuration: no case's fault, and no case here can do better
            self._failure = error
        elif error:
            # a defect of ours at the very end of an execution: the lease runs out, and the delivery stays counted
            log.error(
                "a case ended by an unexpected error; its lease runs out, and another worker gets it",
                exc_info=error,
                extra={"event": "crashed", "case_id": claim.case_id, "execution": claim.execution},
            )

    def _heartbeat_ended(self, task: asyncio.Task[None]) -> None:
        """It never ends by itself. Without it every lease would lapse unseen."""
        if task.cancelled() or not (error := task.exception()):
            return
        failure = error if isinstance(error, QueueEvalError) else QueueEvalError(f"the heartbeat stopped: {error!r}")
        self._failure = failure
        self._changed.set()

    async def _until_worth_claiming(self, idle: int) -> None:
        """Until a case ends, or for a moment: a longer one while we are full."""
        full = len(self._in_flight) >= self._cases
        if not full and not idle:
            return
        pause_s = FULL_LOOK_S if full else IDLE_BACKOFF.delay_s(idle, jitter=self._clock.chance())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._changed.wait()
        # others that end in this same turn of the loop make room for one larger claim
        await asyncio.sleep(0)

    async def _drained_within_grace(self) -> int:
        # at once: others need not wait out our grace for cases whose claim we did not wait for
        giving_back = asyncio.create_task(self._give_unread_claims_back())
        await asyncio.wait({giving_back, *self._in_flight.tasks}, timeout=self._capacity.grace_s)
        giving_back.cancel()
        await self._in_flight.release_all(timeout_s=RELEASE_TIMEOUT_S)
        state = await self._give_unread_claims_back()
        return EXIT_DRAINED if state in (RunState.DRAINED, RunState.FINALIZED) else EXIT_INTERRUPTED

    async def _give_unread_claims_back(self) -> RunState | None:
        """Release claims whose reply was lost, and return the run's state; None if Redis is unavailable."""
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                claims = await self._queue.repeat_claim()
                await asyncio.gather(*map(self._executor.give_back, claims.claims))
        except (UnavailableError, AccessError, NoInputError, TimeoutError):
            return None
        return claims.state
