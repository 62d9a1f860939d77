"""Calls a metric as DeepEval's own runner does: asynchronously where it can, and in a thread where it blocks."""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

from deepeval.metrics import BaseConversationalMetric, BaseMetric, ToolCorrectnessMetric

from queue_eval.judge.bridge import CalledWithinLoopError
from queue_eval.judge.threads import awaited_in_thread, in_thread, never_awaits

_BASES = (BaseMetric.a_measure, BaseConversationalMetric.a_measure)
_COMPUTING = (ToolCorrectnessMetric,)  # compares each tool with each: 4,000 of them for most of a minute


class Measuring:
    def __init__(self) -> None:
        self._in_threads: set[type] = set()  # metrics that were seen to call their model without awaiting it

    async def measure(self, metric: Any, case: Any) -> None:
        kind = type(metric)
        if getattr(kind, "a_measure", None) in _BASES:
            # public code often has the other one only
            await in_thread(lambda: metric.measure(case, **_quietly(kind.measure)))
            return
        arguments = _quietly(kind.a_measure)
        blocks = issubclass(kind, _COMPUTING) or never_awaits(kind.a_measure)
        if kind not in self._in_threads and not blocks:
            try:
                await metric.a_measure(case, **arguments)
            except CalledWithinLoopError:
                # It would wait for an answer that this very loop must bring. From now on it runs in a thread, with a
                # loop of its own.
                self._in_threads.add(kind)
            else:
                return
        await awaited_in_thread(lambda: metric.a_measure(case, **arguments))


@cache
def _quietly(method: Callable[..., Any]) -> dict[str, Any]:
    """Without DeepEval's progress indicator, where the method knows of one."""
    takes = inspect.signature(method).parameters
    known = "_show_indicator" in takes or any(p.kind is p.VAR_KEYWORD for p in takes.values())
    return {"_show_indicator": False} if known else {}
