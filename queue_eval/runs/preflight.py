"""The first calls of a run: they find out whether its judge serves at all, before a case depends on it."""

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from queue_eval.core.attempt import ErrorClass
from queue_eval.core.errors import ConfigError, JudgeRefusedError, UnavailableError
from queue_eval.core.meter import CaseMeter
from queue_eval.core.settings.metric import MetricSettings
from queue_eval.core.settings.run import RunSettings
from queue_eval.ports.judge_error import JudgeError
from queue_eval.producer.overhead import store_overhead
from queue_eval.producer.producer import Resolve, Resolved
from queue_eval.runs.run import Run
from queue_eval.wiring import judging
from queue_eval.wiring.clocks import steady_clock

if TYPE_CHECKING:
    # importing DeepEval takes seconds: only the commands that judge do it
    from queue_eval.judge.calls import JudgeCalls
    from queue_eval.judge.scorer import DeepEvalScorer

log = logging.getLogger("queue_eval.producer")

TELL_AFTER_S = 10.0


def resolver(settings: RunSettings, calls: "JudgeCalls") -> Resolve:
    """Return the pre-flight call, and then the wording of GEval's steps.

    JudgeRefusedError or UnavailableError before anything is enqueued.
    """

    async def resolve(meter: CaseMeter) -> Resolved:
        from queue_eval.judge.resolution import (  # noqa: PLC0415 - imports DeepEval
            asks_for_logprobs,
            resolved_parameters,
            resolved_threshold,
            weighs,
        )

        specs = settings.specs
        await preflight(judging.build_scorer(specs, calls, settings.judge, settings.retry), meter)
        metrics = []
        try:
            for spec in specs:
                parameters = await resolved_parameters(spec, calls, model_name=settings.judge.model, meter=meter)
                threshold = resolved_threshold(spec, calls, model_name=settings.judge.model, meter=meter)
                metrics.append(MetricSettings(type=spec.type, name=spec.name, threshold=threshold, **parameters))
            weighed = await weighs(calls, meter) if any(asks_for_logprobs(spec) for spec in specs) else None
        except JudgeError as error:
            raise _refused(error) from None
        return Resolved(metrics=tuple(metrics), served_model=calls.served_model, is_weighed=weighed)

    return resolve


async def preflight_again(run: Run, environment: Mapping[str, str]) -> None:
    """Make the pre-flight call of a resumed run; when the judge serves, lift a hold that is left of an earlier part."""
    calls = judging.build_calls(run.settings, run.queue.redis, run.run_id, "producer", environment)
    now = steady_clock()
    meter, started_at = CaseMeter(now), now()
    try:
        await preflight(judging.build_scorer(run.settings.specs, calls, run.settings.judge, run.settings.retry), meter)
        await run.queue.steering.hold(None)
    finally:
        name = f"resume-{int(started_at * 1000)}"
        await store_overhead(run.store, run.run_id, meter, name=name, started_at=started_at, ended_at=now())
        await calls.close()


async def preflight(scorer: "DeepEvalScorer", meter: CaseMeter, *, tell_after_s: float = TELL_AFTER_S) -> None:
    """Make one call. A rate-limited judge may serve in a while, so the call waits.

    After `tell_after_s` a log line reports that.
    """
    telling = asyncio.get_running_loop().call_later(tell_after_s, _tell_waiting, meter, tell_after_s)
    try:
        await scorer.probe(meter)
    except JudgeError as error:
        raise _refused(error) from None
    finally:
        telling.cancel()


def _tell_waiting(meter: CaseMeter, for_s: float) -> None:
    so_far = f"rate-limited {n} times so far" if (n := meter.usage.retries_429) else "it has not answered yet"
    log.warning(
        "the judge has not served the first call within %g s (%s); waiting, and nothing is enqueued before it does",
        for_s,
        so_far,
    )


def _refused(error: JudgeError) -> Exception:
    if error.is_unexplained:
        return ConfigError(
            f"judge: {error}; change what it names: judge.model, judge.temperature, judge.max_output_tokens,"
            " judge.structured_output or judge.query"
        )
    if error.kind is ErrorClass.RUN_FATAL:
        return JudgeRefusedError(f"judge: {error}")
    return UnavailableError(f"judge: {error}; nothing was enqueued")
