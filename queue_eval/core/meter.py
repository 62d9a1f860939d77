"""What a case costs, measured where it is spent and readable at any moment, also when the case is cancelled."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from queue_eval.core.usage import Usage

if TYPE_CHECKING:
    from queue_eval.core.record import (
        MetricResult,  # a model of pydantic's, which who only looks at a run need not wait for
    )


class Span:
    """Time during which at least one of several concurrent things goes on, in seconds of the given clock."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._open = 0
        self._since = 0.0
        self._closed_s = 0.0

    def __enter__(self) -> None:
        if self._open == 0:
            self._since = self._now()
        self._open += 1

    def __exit__(self, *_: object) -> None:
        self._open -= 1
        if self._open == 0:
            self._closed_s += self._now() - self._since

    @property
    def total_s(self) -> float:
        return self._closed_s + (self._now() - self._since if self._open else 0.0)


class UsageMeter:
    """The judge calls and tokens of one metric on one case."""

    def __init__(self, case: "CaseMeter") -> None:
        self.case = case
        self._calls = self._retries_429 = self._input = self._output = self._unmetered = 0

    def admitted(self, input_tokens: int | None, output_tokens: int | None) -> None:
        self._calls += 1
        self._unmetered += input_tokens is None or output_tokens is None
        self._input += input_tokens or 0
        self._output += output_tokens or 0

    def rate_limited(self) -> None:
        self._retries_429 += 1

    @property
    def usage(self) -> Usage:
        return Usage(
            judge_calls=self._calls,
            retries_429=self._retries_429,
            input_tokens=self._input,
            output_tokens=self._output,
            unmetered_calls=self._unmetered,
        )


class CaseMeter:
    """The clocks and the bill of one execution."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.busy = Span(now)  # a judge call is under way
        self.blocked = Span(now)  # a judge call waits for the limiter
        self.waited_s = 0.0  # the same, summed over the calls
        self.finished: list[MetricResult] = []  # scores that are there, whatever becomes of the other metrics
        self._metrics: list[UsageMeter] = []

    def metric(self) -> UsageMeter:
        meter = UsageMeter(self)
        self._metrics.append(meter)
        return meter

    @property
    def usage(self) -> Usage:
        if len(self._metrics) == 1:
            return self._metrics[0].usage
        return sum((m.usage for m in self._metrics), Usage())
