"""How late releases leave this process: the J of the burst rule, measured."""

from queue_eval.ports import Now

KEEP_S = 20.0


class Lateness:
    """The largest of the last KEEP_S seconds, or up to twice as long."""

    def __init__(self, now: Now) -> None:
        self._now = now
        self._turned_at = now()
        self._before = self._largest = 0.0

    def note(self, seconds: float) -> None:
        self._turn()
        self._largest = max(self._largest, seconds)

    @property
    def seconds(self) -> float:
        self._turn()
        return max(self._before, self._largest)

    def _turn(self) -> None:
        now = self._now()
        if now - self._turned_at >= KEEP_S:
            self._before = self._largest if now - self._turned_at < 2 * KEEP_S else 0.0
            self._largest, self._turned_at = 0.0, now
