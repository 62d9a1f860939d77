"""What each instance of GEval would find out for itself, asked once for all workers.

The evaluation steps, and whether scores are weighed.
"""

import inspect
from typing import Any

from queue_eval.core.attempt import ErrorClass
from queue_eval.core.errors import ConfigError
from queue_eval.core.meter import CaseMeter
from queue_eval.core.metric_spec import MetricSpec
from queue_eval.judge.bridge import BridgeModel, ScoreAnswer
from queue_eval.judge.calls import JudgeCalls, NoLogprobsError
from queue_eval.judge.metrics import built, constructor_of, metric_class, own_threshold
from queue_eval.ports.judge_error import JudgeError

SCORE_PROMPT = 'Answer with this JSON object and nothing else: {"reason": "ready", "score": 8}'


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
            f"metrics: {spec.name}: asked for the evaluation steps of its criteria, the judge gave none; write"
            " evaluation_steps in eval.yaml, or use another judge.model"
        )
    return {**parameters, "evaluation_steps": worded}


def resolved_threshold(spec: MetricSpec, calls: JudgeCalls, *, model_name: str, meter: CaseMeter) -> float:
    """Return the threshold of eval.yaml, or the one that a class of one's own takes by itself."""
    if spec.threshold is not None:
        return spec.threshold
    return own_threshold(built(spec, BridgeModel(calls, meter.metric(), model_name)), spec.reported_threshold)


def asks_for_logprobs(spec: MetricSpec) -> bool:
    """GEval and its kin weigh a score by the probabilities of its token, where the judge returns them."""
    return "top_logprobs" in constructor_of(metric_class(spec.type))


async def weighs(calls: JudgeCalls, meter: CaseMeter) -> bool:
    """Whether the judge answers with logprobs, asked where DeepEval takes its model to be one that does."""
    if not calls.tells_logprobs:
        return False
    try:
        await calls.ask_weighed(SCORE_PROMPT, ScoreAnswer, 5, meter.metric())
    except NoLogprobsError:
        return False
    except JudgeError as error:
        # it serves, as the call before has shown, and does not bring what was asked for
        if error.kind is ErrorClass.CASE_FATAL:
            return False
        raise
    finally:
        await calls.settled(meter)
    return True
