"""The gate of eval.yaml."""

from typing import Literal

from pydantic import Field

from queue_eval.core.gate import GateRules, MetricRule
from queue_eval.core.settings.section import Fraction, Section


class MetricRuleSettings(Section):
    min_mean: float | None = Field(None, description="of the scores that there are, on the metric's own scale")
    min_pass_rate: Fraction | None = Field(
        None, description="of all cases: one that is dead or that the metric could not score has not passed"
    )


class GateSettings(Section):
    mode: Literal["warn", "block"] = Field(
        "block", description="warn: a failed gate is reported and the exit code stays 0"
    )
    metrics: dict[str, MetricRuleSettings] = Field(
        default_factory=dict, description="bounds for each metric, by its reported name"
    )
    max_error_rate: Fraction = Field(1.0, description="of metric results that gave no score")
    min_coverage: Fraction = Field(0.95, description="below this share of scored cases the verdict is inconclusive")

    @property
    def rules(self) -> GateRules:
        return GateRules(
            block=self.mode == "block",
            metrics={name: MetricRule(**rule.model_dump()) for name, rule in self.metrics.items()},
            max_error_rate=self.max_error_rate,
            min_coverage=self.min_coverage,
        )
