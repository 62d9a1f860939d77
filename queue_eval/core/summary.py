"""The figures of a run, gathered from its records one at a time: memory grows with numbers, not with texts."""

import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from queue_eval.core.ending import Ending
from queue_eval.core.gate import MetricFigures
from queue_eval.core.record import MetricResult, Record
from queue_eval.core.usage import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    mean: float
    p50: float
    p95: float
    longest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Distribution | None":
        ordered = sorted(values)
        if not ordered:
            return None
        return cls(
            mean=math.fsum(ordered) / len(ordered),
            p50=percentile(ordered, 0.50),
            p95=percentile(ordered, 0.95),
            longest=ordered[-1],
        )


def percentile(ordered: list[float], q: float) -> float:
    """Nearest rank of a sorted, non-empty list."""
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def wilson(passed: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate (Wilson 1927)."""
    if not n:
        return (0.0, 1.0)
    p = passed / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return (max(0.0, centre - half), min(1.0, centre + half))


@dataclass(slots=True)
class MetricTally:
    threshold: float
    scores: "array[float]" = field(default_factory=lambda: array("d"))
    durations: "array[float]" = field(default_factory=lambda: array("d"))
    passed: int = 0
    errors: int = 0
    usage: Usage = field(default_factory=Usage)

    @property
    def n(self) -> int:
        return len(self.scores)

    def figures(self) -> MetricFigures:
        return MetricFigures(
            mean=math.fsum(self.scores) / self.n if self.n else None,
            pass_rate=self.passed / self.n if self.n else None,
            n=self.n,
            errors=self.errors,
        )


class Tally:
    """Add every record of a run, in any order; the figures do not depend on it."""

    def __init__(self, thresholds: Mapping[str, float]) -> None:
        self.metrics = {name: MetricTally(threshold) for name, threshold in thresholds.items()}
        self.scored = 0
        self.dead = 0
        self.usage = Usage()
        self.overhead = Usage()
        self._executions: set[tuple[str, str]] = set()
        self.recorded = 0  # executions that left a record
        self._deliveries: dict[str, int] = {}  # of each case, as far as its records show
        self._started = array("d")
        self._ended = array("d")
        self._busy = array("d")
        self._durations = array("d")

    def add_outcome(self, record: Record) -> None:
        """The accepted result of a case, or its last dead letter."""
        if record.ending is Ending.SCORED:
            self.scored += 1
        else:
            self.dead += 1
        self._durations.append(record.duration_s)
        self._busy.append(record.busy_s)
        for result in record.metrics:
            self._add_metric(result)
        if record.ending is Ending.DEAD:
            for name in self.metrics.keys() - {m.name for m in record.metrics}:
                self.metrics[name].errors += 1
        self.add_spent(record)

    def add_spent(self, record: Record) -> None:
        """What any execution cost, accepted or not; once, should two records have it."""
        if (execution := (record.case_id, record.execution)) in self._executions:
            return
        self._executions.add(execution)
        self.usage += record.usage
        if record.ending is Ending.OVERHEAD:
            self.overhead += record.usage
        else:
            self.recorded += 1
            self._deliveries[record.case_id] = max(self._deliveries.get(record.case_id, 0), record.delivery)
            self._started.append(record.started_at)
            self._ended.append(record.ended_at)

    def _add_metric(self, result: MetricResult) -> None:
        tally = self.metrics.setdefault(result.name, MetricTally(result.threshold))
        tally.usage += result.usage
        if result.score is None:
            tally.errors += 1
            return
        tally.threshold = result.threshold
        tally.scores.append(result.score)
        tally.durations.append(result.duration_s)
        tally.passed += bool(result.passed)

    @property
    def deliveries(self) -> int:
        return sum(self._deliveries.values())

    @property
    def elapsed_s(self) -> float:
        """From the first claim to the last end, by the workers' clocks."""
        return max(self._ended) - min(self._started) if self._started else 0.0

    @property
    def peak_in_flight(self) -> int:
        """The most executions that were ever under way at once."""
        events = sorted([(t, 1) for t in self._started] + [(t, -1) for t in self._ended])
        peak = level = 0
        for _, step in events:
            level += step
            peak = max(peak, level)
        return peak

    @property
    def bound_s(self) -> float:
        """No schedule can be faster: max(total busy time / in flight, longest case)."""
        if not self._busy:
            return 0.0
        evenly = math.fsum(self._busy) / max(1, self.peak_in_flight)
        return max(evenly, *self._busy)

    @property
    def case_durations(self) -> Distribution | None:
        return Distribution.of(self._durations)

    @property
    def ended_at(self) -> float:
        return max(self._ended) if self._ended else 0.0

    @property
    def started_at(self) -> float:
        return min(self._started) if self._started else 0.0
