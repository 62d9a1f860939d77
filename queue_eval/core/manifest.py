"""The frozen inputs of a run: everything that must be the same for all its workers, and nothing secret."""

import hashlib
import json
from itertools import zip_longest
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from queue_eval.core.metric_spec import specs_of

MANIFEST_VERSION = 2  # where cases and executions lie has changed


# How a run is carried out may change between a stop and its resumption; what is measured may not.
_OPERATIONAL = ("limits", "retry", "workers", "labels")


class DatasetFacts(BaseModel):
    model_config = ConfigDict(frozen=True)

    source: str  # as the user named it
    sha256: str  # over the normalized cases, in order
    cases: int = Field(ge=0)
    duplicates: int
    chunks: int = Field(ge=0)  # objects cases/<sha256, 16 digits of it>/00000.jsonl.gz …
    selection: str  # how a part was chosen, "" for all of it


class Manifest(BaseModel):
    model_config = ConfigDict(frozen=True)

    version: int = MANIFEST_VERSION
    run_id: str
    identity: str  # of the inputs, before GEval's steps were resolved: a judge would word them differently each time
    created_at: float  # Unix seconds, the producer's clock
    settings: dict[str, Any]  # metrics (GEval with resolved steps), judge, limits, retry, gate, workers
    served_model: str | None = None  # which model answered the pre-flight call, by the server's own word
    is_weighed: bool | None = None  # GEval's scores are weighed by the judge's logprobs; None: no metric asks for them
    dataset: DatasetFacts
    metric_prompts_sha256: str  # over DeepEval's prompt templates of the metrics in use
    commit_sha: str | None
    labels: dict[str, str]
    versions: dict[str, str]  # queue-eval, deepeval, python

    def operated_as(self, settings: dict[str, Any]) -> "Manifest":
        """The same run, carried out by the given settings' limits, retries and workers."""
        operation = {key: settings[key] for key in _OPERATIONAL if key in settings}
        return self.model_copy(update={"settings": {**self.settings, **operation}})

    def differs_from(self, settings: dict[str, Any]) -> list[str]:
        """Name what was changed by hand after the manifest was written, by settings that have its identity."""
        keys = (settings.keys() | self.settings.keys()) - {*_OPERATIONAL, "metrics"}
        changed = [key for key in keys if self.settings.get(key) != settings.get(key)]
        try:
            is_same = _unresolved(self.settings, settings) == _unresolved(settings, settings)
        except (KeyError, TypeError, AttributeError):
            is_same = False
        if not is_same:
            changed.append("metrics")
        return sorted(changed)

    def to_json(self) -> bytes:
        return (json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Manifest":
        """ValueError when the bytes are torn, not a manifest, or one whose run lies in the store in another way."""
        manifest = cls.model_validate_json(data)
        if manifest.version != MANIFEST_VERSION:
            raise ValueError(f"it has version {manifest.version}, and this queue-eval reads {MANIFEST_VERSION}")
        metrics = manifest.settings.get("metrics")
        if not isinstance(metrics, list) or not all(map(_is_metric, metrics)):
            raise ValueError("its settings.metrics are no list of metrics with type, name and threshold")
        return manifest


def _is_metric(raw: Any) -> bool:
    return (
        isinstance(raw, dict)
        and isinstance(raw.get("type"), str)
        and isinstance(raw.get("name"), str)
        and isinstance(raw.get("threshold"), int | float)
    )


def _unresolved(settings: dict[str, Any], given: dict[str, Any]) -> list[Any]:
    """The metrics without evaluation steps that were worded since, where `given` has none."""
    found: list[Any] = []
    for spec, original in zip_longest(specs_of(settings["metrics"]), specs_of(given["metrics"])):
        parameters = dict(spec.parameters) if spec else {}
        if original and "evaluation_steps" not in original.parameters:
            parameters.pop("evaluation_steps", None)
        found.append([spec and (spec.type, spec.name, spec.threshold), parameters])
    return found


def identity_of(settings: dict[str, Any], dataset: DatasetFacts, metric_prompts_sha256: str) -> str:
    """The same for two productions of the same inputs: metrics, judge, gate, cases and prompts."""
    measured = {key: value for key, value in settings.items() if key not in _OPERATIONAL}
    body = [MANIFEST_VERSION, measured, dataset.sha256, dataset.selection, metric_prompts_sha256]
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
