"""The cases to look at first, in bounded memory."""

import heapq
from collections.abc import Callable

from queue_eval.core.case import Case
from queue_eval.core.record import Record


class Worst:
    """Keeps the worst `size` cases: without outcome, dead, with errors, then by their lowest score."""

    def __init__(self, size: int, kept: Callable[[Case], Case] = lambda case: case) -> None:
        """`kept`: what is kept of a case."""
        self._size = size
        self._kept = kept
        self._heap: list[tuple[tuple[float, float], int, Case, Record | None]] = []
        self._seen = 0

    def add(self, case: Case, record: Record | None) -> None:
        self._seen += 1
        rank = (_badness(record), -self._seen)
        # a heap's head is its smallest: the best of the worst, the first to go
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, (*rank, self._kept(case), record))
        elif rank > self._heap[0][:2]:
            heapq.heapreplace(self._heap, (*rank, self._kept(case), record))

    @property
    def left_out(self) -> int:
        return self._seen - len(self._heap)

    def rows(self) -> list[tuple[Case, Record | None]]:
        return [(case, record) for _, _, case, record in sorted(self._heap, key=lambda item: item[:2], reverse=True)]


def _badness(record: Record | None) -> tuple[float, float]:
    if record is None:
        return (3.0, 0.0)
    if record.reason:
        return (2.0, 0.0)
    if any(m.error for m in record.metrics):
        return (1.0, 0.0)
    return (0.0, -min((m.score or 0.0 for m in record.metrics), default=0.0))
