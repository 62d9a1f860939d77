"""The part of eval.yaml that a manifest freezes."""

from pydantic import Field

from queue_eval.core.metric_spec import MetricSpec
from queue_eval.core.settings.gate import GateSettings
from queue_eval.core.settings.judge import JudgeSettings
from queue_eval.core.settings.limits import LimitSettings
from queue_eval.core.settings.metric import MetricSettings
from queue_eval.core.settings.retry import RetrySettings
from queue_eval.core.settings.section import Section
from queue_eval.core.settings.workers import WorkerSettings


class RunSettings(Section):
    """All settings that decide a run's outcome, and how it is carried out; not where."""

    metrics: tuple[MetricSettings, ...] = Field(min_length=1)
    judge: JudgeSettings
    limits: LimitSettings = LimitSettings()
    retry: RetrySettings = RetrySettings()
    workers: WorkerSettings = WorkerSettings()
    gate: GateSettings = GateSettings()
    labels: dict[str, str] = Field(default_factory=dict, description="kept with the run")

    @property
    def specs(self) -> list[MetricSpec]:
        return [metric.spec for metric in self.metrics]

    @property
    def judge_calls_per_case(self) -> int:
        """Return about how many calls one case takes, of all metrics together."""
        return sum(spec.judge_calls for spec in self.specs)
