"""GEval words its evaluation steps anew in every instance. Here they are asked for once, for all workers."""

import inspect
from typing import Any

from queue_eval.core.errors import ConfigError
from queue_eval.core.meter import CaseMeter
from queue_eval.core.metric_spec import MetricSpec
from queue_eval.judge.bridge import BridgeModel
from queue_eval.judge.calls import JudgeCalls
from queue_eval.judge.metrics import built, metric_class


async def resolved_parameters(
    spec: MetricSpec, calls: JudgeCalls, *, model_name: str, meter: CaseMeter
) -> dict[str, Any]:
    """The metric's parameters with evaluation steps beside its criteria; unchanged for metrics that have none.

    ConfigError when the judge has none to give: each case would fail by them.
    """
    parameters = dict(spec.parameters)
    generate = getattr(metric_class(spec.type), "_a_generate_evaluation_steps", None)
    if generate is None or not parameters.get("criteria") or parameters.get("evaluation_steps"):
        return parameters
    metric = built(spec, BridgeModel(calls, meter.metric(), model_name))
    takes = inspect.signature(generate).parameters
    try:
        steps = await generate(metric, **({"multimodal": False} if "multimodal" in takes else {}))
    finally:
        await calls.settled(meter)
    worded = [text for step in steps if (text := str(step).strip())]
    if not worded:
        raise ConfigError(
            f"metrics: {spec.name}: asked for the evaluation steps of its criteria, the judge gave none; write evaluation_steps in eval.yaml, or use another judge.model"
        )
    return {**parameters, "evaluation_steps": worded}
