"""The metrics of eval.yaml."""

from pydantic import BaseModel, ConfigDict, Field

from queue_eval.core.metric_spec import MetricSpec
from queue_eval.core.settings.section import Fraction


class MetricSettings(BaseModel):
    """A DeepEval metric; further keys are its constructor's parameters."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    type: str = Field(
        min_length=1,
        description="a DeepEval metric class such as FaithfulnessMetric or GEval, or package.module:Class of your own BaseMetric",
    )
    name: str | None = Field(
        None, min_length=1, max_length=100, description="the name in reports. Otherwise the class name without Metric"
    )
    threshold: Fraction = Field(0.5, description="a case passes the metric from this score on")

    @property
    def reported_name(self) -> str:
        if self.name:
            return self.name
        class_name = self.type.rpartition(":")[2].rpartition(".")[2]
        return class_name.removesuffix("Metric") or class_name

    @property
    def spec(self) -> MetricSpec:
        parameters = self.model_dump(mode="json", exclude=set(type(self).model_fields))
        return MetricSpec(type=self.type, name=self.reported_name, threshold=self.threshold, parameters=parameters)
