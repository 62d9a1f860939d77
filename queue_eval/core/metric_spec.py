"""A metric of a run, as the file and the manifest name it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Judge calls that a metric makes for one case with a reason, measured (research: deepeval 4.3.1); others are taken for
# 3.
_CALLS = {
    "AnswerRelevancyMetric": 3,
    "FaithfulnessMetric": 4,
    "HallucinationMetric": 2,
    "GEval": 1,
    "ExactMatchMetric": 0,
    "PatternMatchMetric": 0,
}


DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """A metric of the run, as the manifest keeps it."""

    type: str
    name: str  # as reported
    threshold: float | None  # None: what its class takes by itself, until the pre-flight call has found that
    parameters: Mapping[str, Any]

    @property
    def reported_threshold(self) -> float:
        return DEFAULT_THRESHOLD if self.threshold is None else self.threshold

    @property
    def judge_calls(self) -> int:
        """Calls for one case, about."""
        calls = _CALLS.get(self.type, 3)
        return max(0, calls - 1) if calls > 1 and self.parameters.get("include_reason") is False else calls
