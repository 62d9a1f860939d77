"""A metric that asks no judge: what is left is the cost of the queue, the store and the worker."""

from typing import Any

from deepeval.metrics import BaseMetric


class NoOp(BaseMetric):  # type: ignore[misc]  # deepeval has no type information
    def __init__(self, threshold: float = 0.5, model: Any = None, *, async_mode: bool = True) -> None:
        self.threshold = threshold
        self.async_mode = async_mode
        self.model = model

    async def a_measure(self, *_: Any, **__: Any) -> float:
        self.score, self.success = 1.0, True
        return 1.0

    def measure(self, *_: Any, **__: Any) -> float:
        raise NotImplementedError

    def is_successful(self) -> bool:
        return bool(self.success)
