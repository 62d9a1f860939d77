"""How often the user has asked `run` to stop."""

import asyncio
from typing import TypeVar

from queue_eval.core.errors import InterruptedRunError

T = TypeVar("T")


class Interrupts:
    """Counts Ctrl-C and SIGTERM. The first stops gracefully, the second ends at once."""

    def __init__(self) -> None:
        self.count = 0
        self._producing: asyncio.Task[object] | None = None

    def __call__(self) -> None:
        self.count += 1
        if self._producing:
            self._producing.cancel()

    async def end_at_once(self, producing: "asyncio.Task[T]") -> T:
        """Return the task's result.

        InterruptedRunError when it is interrupted: producing again goes on where it stood.
        """
        self._producing = producing
        try:
            return await producing
        except asyncio.CancelledError:
            raise InterruptedRunError(
                "stopped before anything was judged; give the same command again to go on"
            ) from None
        finally:
            self._producing = None
