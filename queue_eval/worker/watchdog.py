"""Ends a process whose event loop stands still for good. Nothing within the loop could: hence a thread."""

import logging
import math
import os
import threading
from collections.abc import Callable
from typing import Self

log = logging.getLogger("queue_eval.worker")

TICK_S = 1.0
EXIT_STUCK = 70  # EX_SOFTWARE: to its supervisor a crash, as a kill is


def end_process(after_s: float) -> None:
    """As a kill would: what was in flight is leased again, and a case that does it to three workers is dead."""
    log.error(
        "something has blocked the event loop for %g s, a metric or judge that is not asynchronous: this process ends",
        after_s,
        extra={"event": "event_loop_stuck"},
    )
    os._exit(EXIT_STUCK)


class Watchdog:
    """While it is entered, `end` is called once when `turned` was not for `patience_s`. Infinite: never."""

    def __init__(
        self, *, patience_s: float, tick_s: float = TICK_S, end: Callable[[float], None] = end_process
    ) -> None:
        self._patience_s = patience_s
        self._tick_s = tick_s
        self._end = end
        self._ticks = 0  # since the loop turned. Counted, not timed: what stops the whole process stops this thread too
        self._over = threading.Event()

    def turned(self) -> None:
        """Call it in the event loop, now and then."""
        self._ticks = 0

    def __enter__(self) -> Self:
        self.turned()
        if self._patience_s < math.inf:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(self._tick_s):
            self._ticks += 1
            if self._ticks * self._tick_s > self._patience_s:
                self._end(self._patience_s)
                return
