"""The producer, its inputs, and the pre-flight call."""

import asyncio
import logging
import platform
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from queue_eval import __version__
from queue_eval.config.settings import Settings
from queue_eval.core.errors import ConfigError, JudgeRefusedError, UnavailableError
from queue_eval.core.meter import CaseMeter
from queue_eval.core.metric_spec import MetricSpec, specs_of
from queue_eval.ports import JudgeError, Store
from queue_eval.producer.producer import Inputs, Producer, Resolve, Resolved
from queue_eval.wiring.clocks import steady_clock
from queue_eval.wiring.judging import build_scorer
from queue_eval.wiring.queues import RunQueue

if TYPE_CHECKING:
    # importing DeepEval takes seconds: only the verbs that judge do it
    from queue_eval.judge.calls import JudgeCalls
    from queue_eval.judge.scorer import DeepEvalScorer

log = logging.getLogger("queue_eval.producer")

TELL_AFTER_S = 10.0


def build_producer(
    store: Store, queue: RunQueue, specs: list[MetricSpec], earlier_busy_s: dict[str, float]
) -> Producer:
    from queue_eval.judge.metrics import faults  # noqa: PLC0415 - imports DeepEval

    return Producer(
        store=store,
        queue=queue.enqueueing,
        missing_fields=partial(faults, specs),
        earlier_busy_s=earlier_busy_s,
        now=steady_clock(),
    )


def inputs_of(run_id: str, settings: Settings, *, source: str, selection: str, commit_sha: str | None) -> Inputs:
    from queue_eval.judge.metrics import prompts_sha256  # noqa: PLC0415 - imports DeepEval

    frozen = settings.frozen_part()
    specs = specs_of(frozen["metrics"])
    return Inputs(
        run_id=run_id,
        settings=frozen,
        source=source,
        selection=selection,
        metric_prompts_sha256=prompts_sha256(specs),
        commit_sha=commit_sha,
        labels=settings.labels,
        versions={"queue-eval": __version__, "deepeval": version("deepeval"), "python": platform.python_version()},
        judge_calls=sum(spec.judge_calls for spec in specs),
    )


def resolver(settings: Settings, calls: "JudgeCalls") -> Resolve:
    """The pre-flight call, then GEval's steps. JudgeRefusedError or UnavailableError before anything is enqueued."""

    async def resolve(meter: CaseMeter) -> Resolved:
        from queue_eval.judge.resolution import (  # noqa: PLC0415 - imports DeepEval
            asks_for_logprobs,
            resolved_parameters,
            weighs,
        )

        specs = specs_of([m.model_dump(mode="json") for m in settings.metrics])
        await preflight(build_scorer(specs, calls, settings.judge, settings.retry), meter)
        metrics = []
        try:
            for spec in specs:
                parameters = await resolved_parameters(spec, calls, model_name=settings.judge.model, meter=meter)
                metrics.append({"type": spec.type, "name": spec.name, "threshold": spec.threshold, **parameters})
            weighed = await weighs(calls, meter) if any(asks_for_logprobs(spec) for spec in specs) else None
        except JudgeError as error:
            raise _refused(error) from None
        return Resolved(metrics=metrics, served_model=calls.served_model, is_weighed=weighed)

    return resolve


async def preflight(scorer: "DeepEvalScorer", meter: CaseMeter, *, tell_after_s: float = TELL_AFTER_S) -> None:
    """One call. A judge that only answers 429 may serve in a while, so it is waited for; whoever waits is told, once."""
    telling = asyncio.get_running_loop().call_later(tell_after_s, _tell_waiting, meter, tell_after_s)
    try:
        await scorer.probe(meter)
    except JudgeError as error:
        raise _refused(error) from None
    finally:
        telling.cancel()


def _tell_waiting(meter: CaseMeter, for_s: float) -> None:
    told = f"{n} answers 429 so far" if (n := meter.usage.retries_429) else "it has not answered yet"
    log.warning(
        "the judge has not served the first call within %g s (%s); waiting, and nothing is enqueued before it does",
        for_s,
        told,
    )


def _refused(error: JudgeError) -> Exception:
    from queue_eval.core.attempt import ErrorClass  # noqa: PLC0415

    if error.is_unexplained:
        return ConfigError(
            f"judge: {error}; change what it names: judge.model, judge.temperature, judge.max_output_tokens, judge.structured_output or judge.query"
        )
    if error.kind is ErrorClass.RUN_FATAL:
        return JudgeRefusedError(f"judge: {error}")
    return UnavailableError(f"judge: {error}; nothing was enqueued")
