"""How late releases leave this process: the J of the burst rule, measured."""

from collections import Counter

from queue_eval.ports.clock import Now

KEEP_S = 20.0
BIN_S = 0.005
MOST_S = 5.0
SHARE = 0.99  # one late release in a hundred adds less than one call to any window


class Lateness:
    """Below what SHARE of the releases stayed, over the last KEEP_S seconds or up to twice as long."""

    def __init__(self, now: Now) -> None:
        self._now = now
        self._turned_at = now()
        self._before: Counter[int] = Counter()
        self._bins: Counter[int] = Counter()

    def note(self, seconds: float) -> None:
        self._turn()
        self._bins[int(min(max(seconds, 0.0), MOST_S) / BIN_S)] += 1

    @property
    def seconds(self) -> float:
        self._turn()
        bins = self._before + self._bins
        above = (1 - SHARE) * bins.total()
        for index in sorted(bins, reverse=True):
            above -= bins[index]
            if above < 0:
                return (index + 1) * BIN_S
        return 0.0

    def _turn(self) -> None:
        now = self._now()
        if now - self._turned_at >= KEEP_S:
            self._before = self._bins if now - self._turned_at < 2 * KEEP_S else Counter()
            self._bins, self._turned_at = Counter(), now
