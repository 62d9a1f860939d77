"""Waiting out infrastructure: a Redis or a store that is away costs no attempt, only time."""

import logging
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

from queue_eval.core.attempt import Backoff
from queue_eval.core.errors import AccessError, UnavailableError
from queue_eval.ports.clock import Chance, Now, Sleep

T = TypeVar("T")

log = logging.getLogger("queue_eval.retry_while_unavailable")

OUTAGE_BACKOFF = Backoff(base_s=0.2, max_s=5.0)


class RetryWhileUnavailable:
    """With one thing that may be away. Logs once that it is, and once that it is back."""

    def __init__(self, *, sleep: Sleep, chance: Chance, now: Now, give_up_after_s: float | None = None) -> None:
        self._sleep = sleep
        self._chance = chance
        self._now = now
        self._give_up_after_s = give_up_after_s
        self._away_since: float | None = None
        self._has_served = False
        self._served_at = -math.inf

    async def call(self, action: Callable[[], Awaitable[T]]) -> T:
        """The action's value; while it raises UnavailableError it is repeated, so it must be safe to repeat.

        AccessError is waited out too, once something has succeeded: the credentials were right before.
        """
        attempt = 0
        while True:
            began = self._now()
            try:
                value = await action()
            except (UnavailableError, AccessError) as error:
                attempt += 1
                if self._gives_up(error, began):
                    raise
                await self._sleep(OUTAGE_BACKOFF.delay_s(attempt, jitter=self._chance()))
            else:
                self._served()
                return value

    def _gives_up(self, error: Exception, began: float) -> bool:
        if isinstance(error, AccessError) and not self._has_served:
            return True
        if self._away_since is None and began < self._served_at:
            return False  # another action has succeeded since: this one met the end of what is over already
        if self._away_since is None:
            self._away_since = self._now()
            log.warning("unavailable; waiting", extra={"event": "unavailable", "reason": str(error)})
        away_s = self._now() - self._away_since
        return self._give_up_after_s is not None and away_s >= self._give_up_after_s

    def _served(self) -> None:
        self._has_served, self._served_at = True, self._now()
        if self._away_since is not None:
            away_s, self._away_since = self._now() - self._away_since, None
            log.warning("available again", extra={"event": "available", "away_s": round(away_s, 1)})
