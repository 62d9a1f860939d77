"""DeepEval's metrics by name: found, checked before anything is enqueued, and built afresh for every case."""

import difflib
import hashlib
import inspect
import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import deepeval.metrics
from deepeval.metrics import (
    BaseConversationalMetric,
    BaseMetric,
    ConversationalGEval,
    GEval,
    JsonCorrectnessMetric,
    ToolUseMetric,
)
from deepeval.metrics.g_eval.utils import Rubric
from deepeval.models import DeepEvalBaseLLM
from deepeval.test_case import MultiTurnParams, SingleTurnParams, ToolCall

from queue_eval.core.case import Case
from queue_eval.core.errors import ConfigError
from queue_eval.core.metric_spec import MetricSpec
from queue_eval.judge.bridge import BridgeModel
from queue_eval.judge.imported import imported
from queue_eval.judge.test_cases import test_case

# what DeepEval refuses to do without; of the rest its prompts state that it is missing
_OF_A_CONVERSATION = frozenset(("expected_outcome", "scenario", "metadata", "tags", "provider_transcript", "audio"))
# by the part of DeepEval that they are in
_READS = {
    "multimodal_metrics": "scores images",
    **dict.fromkeys(("voice", "audio_glitch", "transcription_accuracy"), "scores sound"),
    **dict.fromkeys(("mcp", "mcp_use_metric"), "reads MCP's own objects"),
}
_OURS = frozenset(("model", "async_mode", "threshold", "name"))


@cache
def metric_class(type_name: str) -> Any:
    """ConfigError when there is no such metric."""
    if ":" in type_name:
        return imported(type_name, (BaseMetric, BaseConversationalMetric))
    found = getattr(deepeval.metrics, type_name, None) or getattr(deepeval.metrics, f"{type_name}Metric", None)
    if not (inspect.isclass(found) and issubclass(found, BaseMetric | BaseConversationalMetric)) or found in (
        BaseMetric,
        BaseConversationalMetric,
    ):
        near = difflib.get_close_matches(type_name.removesuffix("Metric") + "Metric", _known(), n=1, cutoff=0.75)
        has = f"did you mean {near[0]}? It has" if near else "it has"
        raise ConfigError(
            f"{type_name!r} is no DeepEval metric; {has} {', '.join(_known())}; your own are named package.module:Class"
        )
    return found


def _known() -> list[str]:
    bases = (BaseMetric, BaseConversationalMetric)
    return sorted(
        n for n, c in vars(deepeval.metrics).items() if inspect.isclass(c) and issubclass(c, bases) and c not in bases
    )


def built(spec: MetricSpec, model: BridgeModel) -> Any:
    """A fresh instance: an instance shared by concurrent cases mixes their scores up."""
    cls = metric_class(spec.type)
    takes = constructor_of(cls)
    arguments = dict(spec.parameters)
    if "evaluation_params" in arguments:
        arguments["evaluation_params"] = [_param(cls, p) for p in arguments["evaluation_params"]]
    if arguments.get("evaluation_steps"):
        arguments.pop("criteria", None)
    for name, value in (("model", model), ("threshold", spec.threshold), ("async_mode", True), ("name", spec.name)):
        if name in takes and value is not None:
            arguments[name] = value  # noqa: PERF403 - overrides what the user gave
    if "eval_mode" in takes and cls.__module__.startswith("deepeval."):
        # where it is not named, DeepEval looks at the whole environment for each metric of each case
        arguments["eval_mode"] = "llm"
    # what DeepEval wants as objects of its own: a mapping would be shown to the judge in other words
    objects: dict[str, Any] = {"rubric": Rubric}
    if issubclass(cls, ToolUseMetric):
        objects["available_tools"] = ToolCall
    for name, kind in objects.items():
        if any(isinstance(one, Mapping) for one in arguments.get(name) or ()):
            arguments[name] = [kind(**one) if isinstance(one, Mapping) else one for one in arguments[name]]
    metric = cls(**arguments)
    asks = getattr(metric, "model", None)
    if isinstance(asks, DeepEvalBaseLLM) and asks is not model and type(asks).__module__.startswith("deepeval."):
        raise ConfigError(
            f"{spec.type} asks a {type(asks).__name__} of its own, past the judge;"
            " let its constructor take `model`, and hand it on"
        )
    return metric


@cache
def constructor_of(cls: Any) -> Mapping[str, inspect.Parameter]:
    """What its constructor takes, with what **kwargs hand on to that of a base."""
    takes: dict[str, inspect.Parameter] = {}
    for base in inspect.getmro(cls):
        if own := vars(base).get("__init__"):
            found = inspect.signature(own).parameters
            takes = {**found, **takes}
            if not any(p.kind is p.VAR_KEYWORD for p in found.values()):
                break
    takes.pop("self", None)
    return takes


def own_threshold(metric: Any, named: float) -> float:
    """The one that the metric itself goes by: with strict_mode that is another than was named."""
    own = getattr(metric, "threshold", None)
    return float(own) if isinstance(own, int | float) and math.isfinite(own) else named


def _param(cls: Any, name: Any) -> Any:
    choices = MultiTurnParams if issubclass(cls, BaseConversationalMetric) else SingleTurnParams
    try:
        return choices(str(name).lower())
    except ValueError:
        raise ConfigError(f"evaluation_params: {name!r} is none of {', '.join(p.value for p in choices)}") from None


def problems(specs: list[MetricSpec], model: BridgeModel) -> Iterator[tuple[int, str]]:
    """(index, message) of every metric that cannot be built."""
    for index, spec in enumerate(specs):
        try:
            cls = metric_class(spec.type)
            takes = constructor_of(cls)
            open_ended = any(p.kind is p.VAR_KEYWORD for p in takes.values())
            if spec.parameters.get("eval_mode") not in (None, "llm"):
                yield (
                    index,
                    (
                        f"eval_mode {spec.parameters['eval_mode']!r} asks a judge of DeepEval's own, which no limit"
                        " binds and no report counts; leave it out"
                    ),
                )
                continue
            unknown = [p for p in spec.parameters if p not in takes and not open_ended]
            if unknown:
                yield (
                    index,
                    (
                        f"{spec.type} has no parameter {', '.join(unknown)}; it takes"
                        f" {', '.join(sorted(takes.keys() - _OURS))}"
                    ),
                )
                continue
            if fault := _unservable(spec, built(spec, model)):
                yield index, fault
        except ConfigError as error:
            yield index, str(error)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a constructor raises is its user's to mend
            yield index, f"{spec.type} cannot be built: {error}"


def _unservable(spec: MetricSpec, metric: BaseMetric | BaseConversationalMetric) -> str | None:
    """Why no case of a file can be scored by the metric as it stands; None when it can."""
    if isinstance(metric, GEval | ConversationalGEval) and not metric.evaluation_params:
        return f"{spec.type} needs evaluation_params: the fields of a case that the judge is shown"
    if isinstance(metric, JsonCorrectnessMetric) and isinstance(spec.parameters.get("expected_schema"), Mapping):
        return (
            f"{spec.type}: expected_schema is a class of pydantic, which YAML cannot hold;"
            " name a metric of your own that has it: package.module:Class"
        )
    if getattr(metric, "requires_trace", False):
        return (
            f"{spec.type} reads the trace of an agent's run, which a case does not hold;"
            " score it where the agent runs, with DeepEval itself"
        )
    home, _, family = type(metric).__module__.partition(".metrics.")
    what = _READS.get(family.partition(".")[0]) if home == "deepeval" else None
    return f"{spec.type} {what}, which a case does not hold; leave it out" if what else None


def required_fields(spec: MetricSpec) -> tuple[str, ...]:
    """Fields that a case must have for the metric."""
    cls = metric_class(spec.type)
    if "evaluation_params" in spec.parameters:
        params = [_param(cls, p) for p in spec.parameters["evaluation_params"]]
    else:
        params = (
            getattr(cls, "_required_params" if issubclass(cls, BaseMetric) else "_required_test_case_params", None)
            or []
        )
    return tuple(p.value for p in params if hasattr(p, "value")) if isinstance(params, list) else ()


def missing_fields(spec: MetricSpec, case: Case) -> str | None:
    """Why the metric cannot score the case, found before anything is enqueued; None when it can."""
    conversational = issubclass(metric_class(spec.type), BaseConversationalMetric)
    if conversational != (case.kind == "conversational"):
        return (
            f"{spec.name} scores {'conversations' if conversational else 'single turns'}, and the case is a"
            f" {'single turn' if conversational else 'conversation'}"
        )
    if conversational:
        needed = {*required_fields(spec)} & _OF_A_CONVERSATION
        needed |= {
            f for f in ("chatbot_role", "mcp_servers") if getattr(metric_class(spec.type), f"_requires_{f}", False)
        }
        missing = [f for f in sorted(needed) if not _in_conversation(f, case.fields)]
        return f"{spec.name} needs {', '.join(missing)}" if missing else None
    missing = [
        f for f in required_fields(spec) if case.fields.get(f) is None or (f == "actual_output" and not case.fields[f])
    ]
    return f"{spec.name} needs {', '.join(missing)}" if missing else None


def _in_conversation(field: str, fields: Mapping[str, Any]) -> bool:
    """In the conversation, or in one turn at least."""
    return fields.get(field) is not None or any(turn.get(field) is not None for turn in fields["turns"])


def faults(specs: list[MetricSpec], case: Case) -> list[str]:
    """Return why the metrics cannot score the case, as far as it is known before a judge is asked."""
    built_case = test_case(case)
    if isinstance(built_case, str):
        return [built_case]
    return [fault for spec in specs if (fault := missing_fields(spec, case))]


def prompts_sha256(specs: list[MetricSpec]) -> str:
    """Over the prompt templates that DeepEval ships for these metrics: another wording is another measurement."""
    templates = json.loads((files("deepeval") / "templates" / "metrics" / "templates.json").read_text(encoding="utf-8"))
    mine = {spec.type: templates.get(spec.type) for spec in specs}
    return hashlib.sha256(json.dumps(mine, sort_keys=True).encode()).hexdigest()
