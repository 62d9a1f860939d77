"""Metrics and models that block or compute, and what becomes of them when their case's time is over."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from deepeval.metrics import BaseMetric, ToolCorrectnessMetric
from deepeval.test_case import LLMTestCase, ToolCall

from queue_eval.core.meter import CaseMeter
from queue_eval.judge.bridge import BridgeModel, MetricEndedError
from queue_eval.judge.measuring import Measuring
from queue_eval.judge.threads import in_thread
from testkit.fakes.clock import FakeClock

WITHIN_S = 10


def computing_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "blocking-call"]


async def no_thread_computes() -> None:
    async with asyncio.timeout(WITHIN_S):
        while computing_threads():
            await asyncio.sleep(0.01)


class Blocking(BaseMetric):  # type: ignore[misc]  # deepeval has no type information
    def __init__(self) -> None:
        self.together = threading.Barrier(2)

    def measure(self, test_case: object) -> float:
        self.together.wait(timeout=WITHIN_S)
        self.score = 1.0
        return self.score

    async def a_measure(self, test_case: object) -> float:
        return self.measure(test_case)


class ComputesForEver(Blocking):
    def measure(self, test_case: object) -> float:
        self.together.wait(timeout=WITHIN_S)
        while True:
            pass


class ComparesTools(ToolCorrectnessMetric):  # type: ignore[misc]  # deepeval has no type information
    def __init__(self) -> None:
        super().__init__(model=SimpleModel())
        self.together = threading.Barrier(2)

    def _calculate_score(self) -> float:
        self.together.wait(timeout=WITHIN_S)
        score: float = super()._calculate_score()
        return score


class SimpleModel(BridgeModel):
    def __init__(self) -> None:
        super().__init__(SimpleNamespace(), CaseMeter(FakeClock().now).metric(), "m")  # type: ignore[arg-type]


async def begun(metric: Any, case: object) -> "asyncio.Task[None]":
    """The metric as it computes, while this event loop turns."""
    measuring = asyncio.create_task(Measuring().measure(metric, case))
    async with asyncio.timeout(WITHIN_S):
        while not metric.together.n_waiting:
            assert not measuring.done()
            await asyncio.sleep(0)
    metric.together.wait(timeout=WITHIN_S)
    return measuring


TOOLS = [ToolCall(name="search"), ToolCall(name="read")]


@pytest.mark.parametrize(
    ("metric", "case"),
    [
        (Blocking, object()),
        (ComparesTools, LLMTestCase(input="q", actual_output="a", tools_called=TOOLS, expected_tools=TOOLS)),
    ],
)
async def test_a_metric_that_computes_holds_no_other_case_up(metric: Any, case: object) -> None:
    """DeepEval's tool metric compares each tool with each: 4,000 of them take most of a minute."""
    one = metric()
    await (await begun(one, case))
    assert one.score == 1.0


async def test_a_metric_that_computes_for_ever_ends_with_its_case() -> None:
    measuring = await begun(ComputesForEver(), object())
    assert computing_threads()
    measuring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await measuring
    await no_thread_computes()


async def test_a_cancelled_call_ends_no_other_thread() -> None:
    """Threads take the numbers of those that have ended."""
    release = threading.Event()
    over = [asyncio.create_task(in_thread(lambda: None)) for _ in range(20)]
    await asyncio.sleep(0)
    for thread in computing_threads():
        thread.join(WITHIN_S)
    others = [asyncio.create_task(in_thread(lambda: release.wait(WITHIN_S))) for _ in range(20)]
    await asyncio.sleep(0)
    for one in over:
        assert one.cancel()  # its result is there, and it has not read it
    await asyncio.gather(*over, return_exceptions=True)
    release.set()
    assert await asyncio.gather(*others) == [True] * 20


async def test_what_a_metric_leaves_behind_asks_the_judge_no_more() -> None:
    """What those calls cost would stand in no record."""
    asked = 0

    class Calls:
        async def ask(self, *_: object) -> str:
            nonlocal asked
            asked += 1
            return "yes"

    model = BridgeModel(Calls(), CaseMeter(FakeClock().now).metric(), "m")  # type: ignore[arg-type]
    assert await in_thread(lambda: model.generate("before")) == "yes"
    model.end()
    with pytest.raises(MetricEndedError):
        await in_thread(lambda: model.generate("after"))
    with pytest.raises(MetricEndedError):
        await model.a_generate("after")
    assert asked == 1


async def test_a_blocking_call_may_raise_what_no_future_takes() -> None:
    async with asyncio.timeout(WITHIN_S):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await in_thread(lambda: next(iter(())))
