"""Renews the leases of what is in flight, independently of any judge call."""

import asyncio
import logging
from collections.abc import Callable

from queue_eval.core.errors import AccessError, UnavailableError
from queue_eval.ports.clock import Clock
from queue_eval.ports.queue import Claiming
from queue_eval.ports.scorer import Scorer
from queue_eval.worker.in_flight import InFlight

log = logging.getLogger("queue_eval.worker")


class Heartbeat:
    """Three beats fit into a lease, so that one lost beat loses nothing."""

    def __init__(
        self,
        queue: Claiming,
        in_flight: InFlight,
        scorer: Scorer,
        *,
        beat: Callable[[], None],
        turned: Callable[[], None],
        lease_s: float,
        clock: Clock,
    ) -> None:
        """`beat` is called with each beat, `turned` while the event loop turns, whether or not Redis answers."""
        self._queue = queue
        self._in_flight = in_flight
        self._scorer = scorer
        self._beat = beat
        self._turned = turned
        self._lease_s = lease_s
        self._interval_s = lease_s / 3
        self._clock = clock

    async def run(self) -> None:
        watching = asyncio.create_task(self._watch(), name="heartbeat-watch")
        try:
            await self._go_on_beating()
        finally:
            watching.cancel()

    async def _go_on_beating(self) -> None:
        while True:
            self._beat()
            try:
                lost = await self._queue.heartbeat(
                    self._in_flight.claims, waiting=self._scorer.waiting, waited_s=self._in_flight.waited_s
                )
                for claim in lost:
                    log.warning(
                        "lease lost; cancelling the case",
                        extra={"event": "lease_lost", "case_id": claim.case_id, "execution": claim.execution},
                    )
                    self._in_flight.cancel(claim)
            except (UnavailableError, AccessError):
                # the claim loop logs it; here the next beat just comes sooner
                await self._clock.sleep(min(1.0, self._interval_s))
            else:
                await self._clock.sleep(self._interval_s)

    async def _watch(self) -> None:
        """Apart from the beats: one that waits for Redis' answer would not know what kept it waiting."""
        while True:
            slept_from = self._clock.now()
            await self._clock.sleep(self._interval_s)
            self._turned()
            late_s = self._clock.now() - slept_from - self._interval_s
            if late_s > self._lease_s - self._interval_s:
                # something held this process or its event loop: a judge model that blocks, a machine that swaps,
                # SIGSTOP
                log.warning(
                    "the event loop stood still; leases may be lost",
                    extra={"event": "blocked", "late_s": round(late_s, 1)},
                )
