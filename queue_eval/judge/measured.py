"""What a metric has found of a case, read as DeepEval's own runner reads it."""

import math
from dataclasses import dataclass
from typing import Any

from queue_eval.core.metric_spec import MetricSpec
from queue_eval.judge.metrics import own_threshold


class MetricError(Exception):
    """Why a metric gave no score, where neither the judge nor the infrastructure is to blame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    score: float
    passed: bool
    threshold: float
    reason: str

    @classmethod
    def by(cls, metric: Any, spec: MetricSpec) -> "Measured":
        """MetricError where the metric has no score that can be used."""
        if getattr(metric, "error", None) is not None:
            raise MetricError(str(metric.error))
        score = _number(metric.score)
        if score is None or not math.isfinite(score):
            skipped = getattr(metric, "skipped", False)
            found = "it has skipped the case" if skipped else f"its score is {str(metric.score)[:80]!r}"
            raise MetricError(f"the metric gave no number: {found}")
        # DeepEval's own go from 0 to 1, and a judge that was talked into more is no judge. One's own metric has its
        # scale
        if type(metric).__module__.startswith("deepeval.") and not 0 <= score <= 1:
            raise MetricError(f"the score {score:g} is out of range; scores go from 0 to 1")
        return cls(
            score=score,
            # DeepEval's own word, not score >= threshold: some metrics decide otherwise
            passed=bool(metric.is_successful()),
            threshold=own_threshold(metric, spec.reported_threshold),
            reason=str(getattr(metric, "reason", None) or ""),
        )


def _number(score: Any) -> float | None:
    """Return the score as DeepEval reads it, of whatever is a number, or a text that is one."""
    try:
        return float(score)
    except (TypeError, ValueError, OverflowError):
        return None
