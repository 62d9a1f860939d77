"""Keeps the leases of what is in flight, independently of any judge call."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from queue_eval.core.errors import AccessError, UnavailableError
from queue_eval.ports.clock import Now, Sleep
from queue_eval.ports.queue import Claim, Claiming

log = logging.getLogger("queue_eval.worker")


class Heartbeat:
    """Three beats fit into a lease, so that one lost beat loses nothing."""

    def __init__(
        self,
        queue: Claiming,
        *,
        in_flight: Callable[[], Sequence[Claim]],
        waiting: Callable[[], int],
        waited_s: Callable[[], Mapping[str, float]],
        lost: Callable[[Claim], None],
        beat: Callable[[], None],
        turned: Callable[[], None],
        lease_s: float,
        sleep: Sleep,
        now: Now,
    ) -> None:
        self._queue = queue
        self._in_flight = in_flight
        self._waiting = waiting
        self._waited_s = waited_s
        self._lost = lost
        self._beat = beat
        self._turned = turned
        self._lease_s = lease_s
        self._interval_s = lease_s / 3
        self._sleep = sleep
        self._now = now

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
                    self._in_flight(), waiting=self._waiting(), waited_s=self._waited_s()
                )
                for claim in lost:
                    # somebody else may have it by now: cancel the work instead of doubling it
                    log.warning(
                        "lost", extra={"event": "lease_lost", "case_id": claim.case_id, "execution": claim.execution}
                    )
                    self._lost(claim)
            except (UnavailableError, AccessError):
                # the claim loop says so; here the next beat just comes sooner
                await self._sleep(min(1.0, self._interval_s))
            else:
                await self._sleep(self._interval_s)

    async def _watch(self) -> None:
        """Apart from the beats: one that waits for Redis' answer would not know who kept it waiting."""
        while True:
            slept_from = self._now()
            await self._sleep(self._interval_s)
            self._turned()
            late_s = self._now() - slept_from - self._interval_s
            if late_s > self._lease_s - self._interval_s:
                # something held this process or its event loop: a judge model that blocks, a machine that swaps, SIGSTOP
                log.warning("blocked", extra={"event": "blocked", "late_s": round(late_s, 1)})
