"""What a manifest froze, as typed settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from queue_eval.config.limit_settings import LimitSettings
from queue_eval.config.settings import JudgeSettings, RetrySettings, WorkerSettings
from queue_eval.core.errors import DataError
from queue_eval.core.gate import GateRules, MetricRule
from queue_eval.core.manifest import Manifest
from queue_eval.core.metric_spec import MetricSpec, specs_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestSettings:
    """The typed settings that a manifest froze."""

    metrics: list[MetricSpec]
    judge: JudgeSettings
    limits: LimitSettings
    retry: RetrySettings
    workers: WorkerSettings
    gate: GateRules
    is_weighed: bool

    @classmethod
    def of(cls, manifest: Manifest) -> "ManifestSettings":
        s = manifest.settings
        try:
            return cls(
                metrics=specs_of(s["metrics"]),
                judge=TypeAdapter(JudgeSettings).validate_python(s["judge"]),
                limits=LimitSettings.model_validate(s["limits"]),
                retry=RetrySettings.model_validate(s["retry"]),
                workers=WorkerSettings.model_validate(s["workers"]),
                gate=gate_rules(s["gate"]),
                is_weighed=bool(manifest.is_weighed),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"run {manifest.run_id!r}: the settings in its manifest.json cannot be read ({type(error).__name__}: {error}); start a new run"
            ) from None


def gate_rules(gate: Mapping[str, Any]) -> GateRules:
    return GateRules(
        block=gate["mode"] == "block",
        metrics={name: MetricRule(**rule) for name, rule in gate["metrics"].items()},
        max_error_rate=gate["max_error_rate"],
        min_coverage=gate["min_coverage"],
    )
