"""Waiting out infrastructure: Redis that is away costs no attempt, only time."""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from queue_eval.core.attempt import Backoff
from queue_eval.core.errors import UnavailableError
from queue_eval.ports import Chance, Sleep

T = TypeVar("T")

log = logging.getLogger("queue_eval.worker")

OUTAGE_BACKOFF = Backoff(base_s=0.2, max_s=5.0)


class Patience:
    """Says once that something is away, and once that it is back."""

    def __init__(self, *, sleep: Sleep, chance: Chance) -> None:
        self._sleep = sleep
        self._chance = chance
        self._away = False

    async def insist(self, action: Callable[[], Awaitable[T]]) -> T:
        """The action's value; while it raises UnavailableError it is repeated, so it must be safe to repeat."""
        attempt = 0
        while True:
            try:
                value = await action()
            except UnavailableError as error:
                attempt += 1
                if not self._away:
                    self._away = True
                    log.warning("waiting", extra={"event": "unavailable", "reason": str(error)})
                await self._sleep(OUTAGE_BACKOFF.delay_s(attempt, jitter=self._chance()))
            else:
                if self._away:
                    self._away = False
                    log.warning("back", extra={"event": "available"})
                return value
