"""The judge, its calls and the scorer; checks of both for config.load."""

import asyncio
import os
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from redis.asyncio import Redis

from queue_eval.config.load import Problem
from queue_eval.config.settings import Settings
from queue_eval.core.attempt import Backoff
from queue_eval.core.errors import ConfigError
from queue_eval.core.meter import CaseMeter
from queue_eval.core.metric_spec import MetricSpec
from queue_eval.core.settings.judge import ImportedJudge, JudgeSettings, LexicalJudge, OpenAIJudge
from queue_eval.core.settings.limits import LimitSettings
from queue_eval.core.settings.metric import MetricSettings
from queue_eval.core.settings.retry import RetrySettings
from queue_eval.core.settings.workers import WorkerSettings
from queue_eval.ports.judge import Judge
from queue_eval.wiring.limiting import build_limiter

if TYPE_CHECKING:
    # importing DeepEval takes seconds: only the commands that judge do it
    from queue_eval.judge.calls import JudgeCalls
    from queue_eval.judge.estimate import Estimates
    from queue_eval.judge.scorer import DeepEvalScorer
    from queue_eval.judge.secrets import Secrets


LEAST_HOLD_S = 60.0  # of rate limits: a provider's window may be as long, and is no trouble


def build_judge(settings: JudgeSettings, environment: Mapping[str, str], *, weighs: bool = True) -> Judge:
    """`weighs`: return how probable an answer's tokens were, where the judge can.

    ConfigError where a secret that it needs is not in the environment: one worker without a key would stop all of them.
    """
    for name in _missing_secrets(settings, environment):
        raise ConfigError(
            f"judge: the environment variable {name} is not set here; export it (of a pod: a Secret under"
            " kubernetes.secrets or worker_secrets holds it)"
        )
    match settings:
        case OpenAIJudge():
            from queue_eval.judge.openai import OpenAIClient  # noqa: PLC0415 - imports DeepEval's package settings

            def key() -> str | None:
                # a file's last line break often comes along
                return environment.get(settings.api_key_env, "").strip() if settings.api_key_env else None

            return OpenAIClient(settings, api_key=key, now=time.time, weighs=weighs)
        case ImportedJudge():
            from queue_eval.judge.imported import ImportedModel  # noqa: PLC0415 - imports DeepEval

            secret = {argument: environment.get(name, "") for argument, name in settings.params_env.items()}
            params = {**settings.params, **secret}
            return ImportedModel(settings.path, params, _secrets(settings, environment), now=time.time, weighs=weighs)
        case LexicalJudge():
            from queue_eval.judge.lexical import LexicalJudge as Lexical  # noqa: PLC0415 - imports DeepEval

            return Lexical()


def _secrets(judge: JudgeSettings, environment: Mapping[str, str]) -> "Secrets":
    """What the judge knows and no text may show."""
    from queue_eval.judge.secrets import Secrets  # noqa: PLC0415 - imports DeepEval's package settings

    match judge:
        case OpenAIJudge(api_key_env=str(name)):
            return Secrets(lambda: [environment.get(name, "").strip()])
        case ImportedJudge():
            return Secrets.of(environment, *judge.params_env.values())
    return Secrets()


def _missing_secrets(settings: JudgeSettings, environment: Mapping[str, str]) -> list[str]:
    match settings:
        case OpenAIJudge(api_key_env=str(name)) if not environment.get(name, "").strip():
            return [name]
        case ImportedJudge():
            return [name for name in settings.params_env.values() if name not in environment]
    return []


def build_estimates(judge: JudgeSettings, limits: LimitSettings) -> "Estimates":
    from queue_eval.judge.estimate import Estimates, counted_by_tiktoken  # noqa: PLC0415 - imports DeepEval

    fixed = getattr(judge, "max_output_tokens", None) if limits.settle == "estimate" else None
    tokens_matter = set(limits.per_minute.known) - {"requests"}
    count = counted_by_tiktoken(judge.model) if tokens_matter and isinstance(judge, OpenAIJudge) else None
    return Estimates(count=count, output_tokens=fixed) if count else Estimates(output_tokens=fixed)


class CallSettings(Protocol):
    """What eval.yaml and a manifest both have for judge calls."""

    @property
    def judge(self) -> JudgeSettings: ...
    @property
    def limits(self) -> LimitSettings: ...
    @property
    def retry(self) -> RetrySettings: ...
    @property
    def workers(self) -> WorkerSettings: ...


def build_calls(
    settings: CallSettings,
    redis: Redis | None,
    run_id: str,
    who: str,
    environment: Mapping[str, str],
    *,
    weighs: bool = True,
) -> "JudgeCalls":
    from queue_eval.judge.calls import CallPolicy, JudgeCalls  # noqa: PLC0415 - imports DeepEval

    retry = settings.retry
    policy = CallPolicy(
        attempts=retry.call_attempts,
        invalid_answers=retry.invalid_answers,
        backoff=Backoff(base_s=retry.base_delay_s, max_s=retry.max_delay_s),
        timeout_s=retry.call_timeout_s,
        rate_limited_s=max(LEAST_HOLD_S, settings.workers.hold_timeout_s),
    )
    return JudgeCalls(
        build_judge(settings.judge, environment, weighs=weighs),
        build_limiter(settings.judge, settings.limits, redis, run_id, who, call_timeout_s=retry.call_timeout_s),
        policy,
        estimates=build_estimates(settings.judge, settings.limits),
        now=time.monotonic,
        sleep=asyncio.sleep,
        chance=random.random,
    )


def build_scorer(
    specs: list[MetricSpec], calls: "JudgeCalls", judge: JudgeSettings, retry: RetrySettings
) -> "DeepEvalScorer":
    from queue_eval.judge.scorer import DeepEvalScorer  # noqa: PLC0415 - imports DeepEval

    return DeepEvalScorer(
        specs,
        calls,
        model_name=judge.model,
        case_timeout_s=retry.case_timeout_s,
        secrets=_secrets(judge, os.environ),
        now=time.monotonic,
    )


@dataclass(frozen=True, slots=True)
class _ForChecks:
    """Of calls that are never made."""

    judge: JudgeSettings
    limits: LimitSettings
    retry: RetrySettings
    workers: WorkerSettings


def metric_problems(metrics: Mapping[int, MetricSettings]) -> Iterable[Problem]:
    """A check for config.load: metrics that do not exist or cannot be built from their parameters."""
    from queue_eval.judge.bridge import BridgeModel  # noqa: PLC0415 - imports DeepEval
    from queue_eval.judge.metrics import problems  # noqa: PLC0415

    unused = _ForChecks(LexicalJudge(type="lexical"), LimitSettings(), RetrySettings(), WorkerSettings())
    calls = build_calls(unused, None, "check", "check", {})
    model = BridgeModel(calls, CaseMeter(time.monotonic).metric(), "check")
    specs = [metric.spec for metric in metrics.values()]
    places = list(metrics)
    return [(("metrics", places[index]), message) for index, message in problems(specs, model)]


def judge_problems(settings: Settings) -> Iterable[Problem]:
    """A check for config.load: a judge named by import path that cannot be built."""
    if isinstance(settings.judge, ImportedJudge):
        try:
            build_judge(settings.judge, os.environ)
        except ConfigError as error:
            return [(("judge", "path"), str(error))]
    return []
