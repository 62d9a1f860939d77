"""The metrics of eval.yaml."""

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from queue_eval.core.metric_spec import DEFAULT_THRESHOLD, MetricSpec


class MetricSettings(BaseModel):
    """A DeepEval metric; further keys are its constructor's parameters."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    type: str = Field(
        min_length=1,
        description=(
            "a DeepEval metric class such as FaithfulnessMetric or GEval, or package.module:Class of your own"
            " BaseMetric"
        ),
    )
    name: str | None = Field(
        None, min_length=1, max_length=100, description="the name in reports. Otherwise the class name without Metric"
    )
    threshold: float | None = Field(
        None,
        validate_default=True,
        description=(
            "a case passes the metric from this score on. Without it 0.5, or what your own class takes by itself"
        ),
    )

    @field_validator("threshold")
    @classmethod
    def _on_its_scale(cls, threshold: float | None, info: ValidationInfo) -> float | None:
        if is_own(info.data.get("type", "")):
            return threshold
        threshold = DEFAULT_THRESHOLD if threshold is None else threshold
        if not 0 <= threshold <= 1:
            raise ValueError(f"DeepEval's metrics score from 0 to 1; write a threshold between them, not {threshold:g}")
        return threshold

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


def is_own(type_name: str) -> bool:
    """Whether it is a class of one's own, by import path, which scores on a scale of its own."""
    return ":" in type_name
