"""Keeps the leases of what is in flight, independently of any judge call."""

import logging
from collections.abc import Callable, Sequence

from queue_eval.core.errors import UnavailableError
from queue_eval.ports import Claim, Claiming, Sleep

log = logging.getLogger("queue_eval.worker")


class Heartbeat:
    """Three beats fit into a lease, so that one lost beat loses nothing."""

    def __init__(
        self,
        queue: Claiming,
        *,
        in_flight: Callable[[], Sequence[Claim]],
        waiting: Callable[[], int],
        lost: Callable[[Claim], None],
        lease_s: float,
        sleep: Sleep,
    ) -> None:
        self._queue = queue
        self._in_flight = in_flight
        self._waiting = waiting
        self._lost = lost
        self._interval_s = lease_s / 3
        self._sleep = sleep

    async def run(self) -> None:
        while True:
            try:
                for claim in await self._queue.heartbeat(self._in_flight(), waiting=self._waiting()):
                    # somebody else may have it by now: cancel the work instead of doubling it
                    log.warning("lost", extra={"event": "lost", "case_id": claim.case_id, "execution": claim.execution})
                    self._lost(claim)
            except UnavailableError:
                # the claim loop says so; here the next beat just comes sooner
                await self._sleep(min(1.0, self._interval_s))
                continue
            await self._sleep(self._interval_s)
