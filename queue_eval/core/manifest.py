"""The frozen inputs of a run: everything that must be the same for all its workers, and nothing secret."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import zip_longest

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from queue_eval.core.errors import ManifestError
from queue_eval.core.metric_spec import MetricSpec
from queue_eval.core.settings.run import RunSettings

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
    settings: RunSettings  # GEval's metrics with resolved steps
    served_model: str | None = None  # which model answered the pre-flight call, by the server's own word
    is_weighed: bool | None = None  # GEval's scores are weighed by the judge's logprobs; None: no metric asks for them
    dataset: DatasetFacts
    metric_prompts_sha256: str  # over DeepEval's prompt templates of the metrics in use
    commit_sha: str | None
    labels: dict[str, str]
    versions: dict[str, str]  # queue-eval, deepeval, python

    def operated_as(self, settings: RunSettings) -> "Manifest":
        """Return the same run, carried out by the given settings' limits, retries and workers."""
        operation = {key: getattr(settings, key) for key in _OPERATIONAL}
        return self.model_copy(update={"settings": self.settings.model_copy(update=operation)})

    def differs_from(self, settings: RunSettings) -> list[str]:
        """Name what was changed by hand after the manifest was written, by settings that have its identity."""
        measured = RunSettings.model_fields.keys() - {*_OPERATIONAL, "metrics"}
        changed = [key for key in measured if getattr(self.settings, key) != getattr(settings, key)]
        pairs = zip_longest(self.settings.specs, settings.specs)
        if not all(given and _unresolved(kept, given) == given for kept, given in pairs):
            changed.append("metrics")
        return sorted(changed)

    def to_json(self) -> bytes:
        return (json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, *, run_id: str) -> "Manifest":
        """ManifestError when the bytes are torn, no manifest, or one of a version with another layout of the store."""
        try:
            body = from_json(data)
            version = body.get("version", MANIFEST_VERSION) if isinstance(body, Mapping) else MANIFEST_VERSION
            if version != MANIFEST_VERSION:
                raise ManifestError(run_id, f"it has version {version!r:.40}, and this one reads {MANIFEST_VERSION}")
            manifest = cls.model_validate(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "it"
            raise ManifestError(run_id, f"{place}: {first['msg']}") from None
        except ValueError as error:
            raise ManifestError(run_id, str(error).splitlines()[0]) from None
        if manifest.run_id != run_id:
            raise ManifestError(run_id, f"it is of a run {manifest.run_id!a:.80}")
        return manifest


def _unresolved(kept: MetricSpec | None, given: MetricSpec) -> MetricSpec | None:
    """Return a manifest's metric without what was found out since: evaluation steps, and its class's own threshold."""
    if kept is None:
        return kept
    threshold = None if given.threshold is None else kept.threshold
    found = {"evaluation_steps"} - given.parameters.keys()
    return replace(kept, threshold=threshold, parameters={k: v for k, v in kept.parameters.items() if k not in found})


def identity_of(settings: RunSettings, dataset: DatasetFacts, metric_prompts_sha256: str) -> str:
    """The same for two productions of the same inputs: metrics, judge, gate, cases and prompts."""
    measured = settings.model_dump(mode="json", exclude={*_OPERATIONAL})
    body = [MANIFEST_VERSION, measured, dataset.sha256, dataset.selection, metric_prompts_sha256]
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
