"""A metric by import path that does to a worker what the worst cases do. Pods find it on the volume, see `poisoned`."""

EATS_MEMORY = """
import os
from deepeval.metrics import BaseMetric


class Poison(BaseMetric):
    def __init__(self, threshold: float = 0.5, **_: object) -> None:
        self.threshold = threshold

    async def a_measure(self, test_case, *_, **__):
        if "item 7?" in test_case.input:
            held = []
            while True:
                held.append(bytearray(os.urandom(4096)) * 4096)
        self.score, self.success, self.reason = 1.0, True, "harmless"
        return self.score

    def measure(self, test_case, *_, **__):
        raise NotImplementedError("asynchronous only")

    def is_successful(self):
        return self.success

    @property
    def __name__(self):
        return "Poison"
"""
