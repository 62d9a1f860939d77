"""Shows a supervisor that this worker gets on: a file whose age is the time since it last did."""

from collections.abc import Callable
from pathlib import Path


class Alive:
    """Waiting for the limiter, for Redis or for work is getting on; calls that neither end nor wait are not."""

    def __init__(self, path: Path, *, resting: Callable[[], bool], ended: Callable[[], int]) -> None:
        self._path = path
        self._resting = resting
        self._ended = ended
        self._last = -1

    def beat(self) -> None:
        """Call it while the event loop turns."""
        ended = self._ended()
        if self._resting() or ended != self._last:
            self._last = ended
            self._path.touch()
