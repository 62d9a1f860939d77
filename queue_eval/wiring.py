"""The composition root: the only place that knows both the flow and its adapters."""

import asyncio
import json
import os
import platform
import random
import secrets
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from redis.asyncio import Redis
from redis.exceptions import RedisError

from queue_eval import __version__
from queue_eval.config.load import Problem
from queue_eval.config.settings import (
    ImportedJudge,
    JudgeSettings,
    LexicalJudge,
    LimitSettings,
    MetricSettings,
    OpenAIJudge,
    RedisSettings,
    RetrySettings,
    Settings,
    WorkerSettings,
)
from queue_eval.core import objects
from queue_eval.core.attempt import Backoff
from queue_eval.core.errors import ConfigError, DataError, JudgeRefusedError, NoInputError, StoreError, UnavailableError
from queue_eval.core.gate import GateRules, MetricRule
from queue_eval.core.limiter_stats import LimiterStats, merged
from queue_eval.core.limits import Lane
from queue_eval.core.location import bucket_and_prefix, is_remote
from queue_eval.core.manifest import Manifest
from queue_eval.core.meter import CaseMeter
from queue_eval.core.naming import checked_run_id
from queue_eval.finalizer.finalizer import Finalizer
from queue_eval.limiter.shared import SharedLimiter
from queue_eval.limiter.unlimited import Unlimited
from queue_eval.limiter.view import LimiterView
from queue_eval.patience import Patience
from queue_eval.ports import Judge, JudgeError, Limiter, Store
from queue_eval.producer.producer import Inputs, Producer, Resolve, Resolved
from queue_eval.queue.claim import RedisClaiming, Stragglers, WorkerIdentity
from queue_eval.queue.connection import connect
from queue_eval.queue.enqueue import RedisEnqueueing
from queue_eval.queue.keys import RunKeys
from queue_eval.queue.scripts import Retention, RunScripts
from queue_eval.queue.steer import RedisSteering
from queue_eval.report.sheets import all_sheets
from queue_eval.store import s3
from queue_eval.store.directory import DirectoryStore
from queue_eval.store.patient import PatientStore
from queue_eval.store.s3 import REMEDY, S3Store
from queue_eval.worker.execution import Executions
from queue_eval.worker.prober import Prober
from queue_eval.worker.worker import Capacity, Worker

if TYPE_CHECKING:
    # importing DeepEval takes seconds: only the verbs that judge do it
    from queue_eval.judge.calls import JudgeCalls
    from queue_eval.judge.estimate import Estimates
    from queue_eval.judge.metrics import MetricSpec
    from queue_eval.judge.scorer import DeepEvalScorer

PASSWORD_VARIABLE = "QUEUE_EVAL_REDIS_PASSWORD"  # noqa: S105 - the name of a variable
MANIFEST_LOOK_S = 0.5
MAX_CASE_BYTES = 64_000_000  # of an entry in Redis once unpacked; the readers' own bound is far below


def build_patience(*, give_up_after_s: float | None = None) -> Patience:
    return Patience(sleep=asyncio.sleep, chance=random.random, now=time.monotonic, give_up_after_s=give_up_after_s)


def open_store(location: str, run_id: str, *, give_up_after_s: float | None = 20.0) -> Store:
    """A store that is away is waited for; a worker, whose cases would only be somebody else's, waits as long as it takes (None)."""
    store: Store
    if is_remote(location):
        bucket, prefix = bucket_and_prefix(location)
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        store = S3Store(s3.connect(endpoint), bucket=bucket, prefix=f"{prefix}/{checked_run_id(run_id)}".strip("/"))
    else:
        store = DirectoryStore(Path(location) / checked_run_id(run_id))
    return PatientStore(store, build_patience(give_up_after_s=give_up_after_s))


def redis_client(url: str, settings: RedisSettings, environment: Mapping[str, str]) -> Redis:
    password = environment.get(settings.password_env or PASSWORD_VARIABLE)
    return connect(url, password=password)


@dataclass(frozen=True, slots=True)
class RunQueue:
    """The queue of one run, from every side but the worker's."""

    redis: Redis
    keys: RunKeys
    scripts: RunScripts

    @classmethod
    def of(
        cls, redis: Redis, run_id: str, settings: RedisSettings | None = None, *, clock: str | None = None
    ) -> "RunQueue":
        """`settings` say how long the keys of a new run live; an existing run knows it. `clock`: see RunScripts."""
        keys, settings = RunKeys(checked_run_id(run_id)), settings or RedisSettings()
        retention = Retention(running_s=settings.retention_s, finalized_s=settings.finalized_retention_s)
        return cls(redis, keys, RunScripts(redis, keys, retention=retention, now=time.time, clock=clock))

    @property
    def enqueueing(self) -> RedisEnqueueing:
        return RedisEnqueueing(self.scripts, self.keys, new_epoch=lambda: secrets.token_hex(4))

    @property
    def steering(self) -> RedisSteering:
        return RedisSteering(self.redis, self.scripts, self.keys)

    def claiming(self, worker: WorkerIdentity, settings: WorkerSettings) -> RedisClaiming:
        return RedisClaiming(
            self.redis,
            self.scripts,
            self.keys,
            worker=worker,
            lease_ms=int(settings.lease_s * 1000),
            stragglers=Stragglers(times=settings.straggler_times, least_s=settings.straggler_least_s),
            now=time.time,
            max_case_bytes=MAX_CASE_BYTES,
        )


# --- the judge -----------------------------------------------------------------------------------------------------


def build_judge(settings: JudgeSettings, environment: Mapping[str, str]) -> Judge:
    match settings:
        case OpenAIJudge():
            from queue_eval.judge.openai import OpenAIClient  # noqa: PLC0415 - imports DeepEval's package settings

            def key() -> str | None:
                # a file's last line break often comes along
                return environment.get(settings.api_key_env, "").strip() if settings.api_key_env else None

            return OpenAIClient(
                base_url=settings.base_url,
                model=settings.model,
                api_key=key,
                now=time.time,
                api_key_header=settings.api_key_header,
                query=settings.query,
                temperature=settings.temperature,
                max_output_tokens=settings.max_output_tokens,
                structured_output=settings.structured_output,
                allow_link_local=settings.allow_link_local,
            )
        case ImportedJudge():
            from queue_eval.judge.imported import ImportedModel  # noqa: PLC0415 - as above

            secret = {argument: environment.get(name, "") for argument, name in settings.params_env.items()}
            return ImportedModel(settings.path, {**settings.params, **secret}, now=time.time)
        case LexicalJudge():
            from queue_eval.judge.lexical import LexicalJudge as Lexical  # noqa: PLC0415 - as above

            return Lexical()


def limiter_key(judge: JudgeSettings) -> str:
    """Who shares a limit: everybody with the same provider, account and model."""
    return f"{getattr(judge, 'base_url', judge.type)}:{judge.account}:{judge.model}"


def lane_of(run_id: str, limits: LimitSettings) -> Lane:
    return Lane(
        name=run_id,
        weight=limits.weight,
        limits=limits.per_minute,
        counting=limits.counting,
        obeys_headers=limits.headers,
    )


def build_limiter(judge: JudgeSettings, limits: LimitSettings, redis: Redis | None, run_id: str, who: str) -> Limiter:
    alone = isinstance(judge, LexicalJudge) and not limits.per_minute.known
    if redis is None or alone:
        return Unlimited(now=time.time, sleep=asyncio.sleep)
    return SharedLimiter(
        redis,
        key=limiter_key(judge),
        process=f"{who}-{secrets.token_hex(3)}",
        lane=lane_of(run_id, limits),
        adjusts=limits.settle == "adjust",
        now=time.monotonic,
        new_token=lambda: secrets.token_hex(8),
    )


def limiter_view(redis: Redis, manifest: Manifest) -> LimiterView:
    return LimiterView(redis, key=limiter_key(ManifestSettings.of(manifest).judge))


async def limiter_now(redis: Redis, manifest: Manifest) -> LimiterStats | None:
    """None while Redis is away."""
    try:
        return await limiter_view(redis, manifest).stats()
    except (RedisError, OSError):
        return None


async def keep_timeline(redis: Redis, manifest: Manifest, store: Store) -> None:
    """Before a run is finalized: what the limiter did meanwhile goes into the store. A report without it is a report all the same."""
    try:
        seen = await limiter_view(redis, manifest).timeline()
    except (RedisError, OSError):
        return
    if seen:
        stored = await store.get(objects.LIMITER)
        await store.put(objects.LIMITER, merged(stored, seen, since=manifest.created_at))


def build_estimates(judge: JudgeSettings, limits: LimitSettings) -> "Estimates":
    from queue_eval.judge.estimate import Estimates, counted_by_tiktoken  # noqa: PLC0415 - as above

    fixed = getattr(judge, "max_output_tokens", None) if limits.settle == "estimate" else None
    tokens_matter = set(limits.per_minute.known) - {"requests"}
    count = counted_by_tiktoken(judge.model) if tokens_matter and isinstance(judge, OpenAIJudge) else None
    return Estimates(count=count, output_tokens=fixed) if count else Estimates(output_tokens=fixed)


def build_calls(  # noqa: PLR0917 - the judge, its limits, and where they live
    judge: JudgeSettings,
    limits: LimitSettings,
    retry: RetrySettings,
    redis: Redis | None,
    run_id: str,
    who: str,
    environment: Mapping[str, str],
) -> "JudgeCalls":
    from queue_eval.judge.calls import CallPolicy, JudgeCalls  # noqa: PLC0415 - as above

    policy = CallPolicy(
        attempts=retry.call_attempts,
        invalid_answers=retry.invalid_answers,
        backoff=Backoff(base_s=retry.base_delay_s, max_s=retry.max_delay_s),
        timeout_s=retry.call_timeout_s,
    )
    return JudgeCalls(
        build_judge(judge, environment),
        build_limiter(judge, limits, redis, run_id, who),
        policy,
        estimates=build_estimates(judge, limits),
        now=time.time,
        sleep=asyncio.sleep,
        chance=random.random,
    )


def build_scorer(
    specs: "list[MetricSpec]", calls: "JudgeCalls", judge: JudgeSettings, retry: RetrySettings
) -> "DeepEvalScorer":
    from queue_eval.judge.scorer import DeepEvalScorer  # noqa: PLC0415 - as above

    return DeepEvalScorer(specs, calls, model_name=judge.model, case_timeout_s=retry.case_timeout_s, now=time.time)


def metric_problems(metrics: Mapping[int, MetricSettings]) -> Iterable[Problem]:
    """A check for config.load: metrics that do not exist or cannot be built from their parameters."""
    from queue_eval.judge.bridge import BridgeModel  # noqa: PLC0415 - as above
    from queue_eval.judge.metrics import problems, specs_of  # noqa: PLC0415

    calls = build_calls(LexicalJudge(type="lexical"), LimitSettings(), RetrySettings(), None, "check", "check", {})
    model = BridgeModel(calls, CaseMeter(time.time).metric(), "check")
    specs = specs_of([m.model_dump(mode="json") for m in metrics.values()])
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


# --- producing -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestSettings:
    """The typed settings that a manifest froze."""

    metrics: "list[MetricSpec]"
    judge: JudgeSettings
    limits: LimitSettings
    retry: RetrySettings
    workers: WorkerSettings
    gate: GateRules

    @classmethod
    def of(cls, manifest: Manifest) -> "ManifestSettings":
        from queue_eval.judge.metrics import specs_of  # noqa: PLC0415 - as above

        s = manifest.settings
        return cls(
            metrics=specs_of(s["metrics"]),
            judge=TypeAdapter(JudgeSettings).validate_python(s["judge"]),
            limits=LimitSettings.model_validate(s["limits"]),
            retry=RetrySettings.model_validate(s["retry"]),
            workers=WorkerSettings.model_validate(s["workers"]),
            gate=gate_rules(s["gate"]),
        )


def specs_of(settings: dict[str, Any]) -> "list[MetricSpec]":
    from queue_eval.judge.metrics import specs_of as metric_specs  # noqa: PLC0415 - as above

    return metric_specs(settings["metrics"])


def gate_rules(gate: dict[str, Any]) -> GateRules:
    return GateRules(
        block=gate["mode"] == "block",
        metrics={name: MetricRule(**rule) for name, rule in gate["metrics"].items()},
        max_error_rate=gate["max_error_rate"],
        min_coverage=gate["min_coverage"],
    )


def build_producer(
    store: Store, queue: RunQueue, specs: "list[MetricSpec]", earlier_busy_s: dict[str, float]
) -> Producer:
    from queue_eval.judge.metrics import faults  # noqa: PLC0415 - as above

    return Producer(
        store=store,
        queue=queue.enqueueing,
        missing_fields=partial(faults, specs),
        earlier_busy_s=earlier_busy_s,
        now=time.time,
    )


def inputs_of(run_id: str, settings: Settings, *, source: str, selection: str, commit_sha: str | None) -> Inputs:
    from queue_eval.judge.metrics import prompts_sha256, specs_of  # noqa: PLC0415 - as above

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
        from queue_eval.judge.metrics import specs_of  # noqa: PLC0415 - as above
        from queue_eval.judge.resolution import resolved_parameters  # noqa: PLC0415

        specs = specs_of([m.model_dump(mode="json") for m in settings.metrics])
        await preflight(build_scorer(specs, calls, settings.judge, settings.retry), meter)
        metrics = []
        try:
            for spec in specs:
                parameters = await resolved_parameters(spec, calls, model_name=settings.judge.model, meter=meter)
                metrics.append({"type": spec.type, "name": spec.name, "threshold": spec.threshold, **parameters})
        except JudgeError as error:
            raise _refused(error) from None
        return Resolved(metrics=metrics, served_model=calls.served_model)

    return resolve


async def preflight(scorer: "DeepEvalScorer", meter: CaseMeter) -> None:
    try:
        await scorer.probe(meter)
    except JudgeError as error:
        raise _refused(error) from None


def _refused(error: JudgeError) -> Exception:
    from queue_eval.core.attempt import ErrorClass  # noqa: PLC0415

    if error.kind is ErrorClass.RUN_FATAL:
        return JudgeRefusedError(f"judge: {error}")
    return UnavailableError(f"judge: {error}; nothing was enqueued")


async def read_manifest(store: Store, run_id: str, where: str) -> Manifest:
    data = await store.get(objects.MANIFEST)
    if data is None:
        raise NoInputError(
            f"run {run_id!r}: {where} holds no {objects.MANIFEST} of it; check the run id, and name the store with --store (eval.yaml's is beside that file)"
        )
    try:
        return Manifest.from_json(data)
    except ValueError as error:
        raise DataError(
            f"run {run_id!r}: {objects.MANIFEST} cannot be read ({str(error).splitlines()[0]}); was it written by another version?"
        ) from None


async def awaited_manifest(store: Store, run_id: str, where: str, *, wait_s: float) -> Manifest:
    """Of a run that somebody may only be about to produce."""
    until = time.monotonic() + wait_s
    while True:
        try:
            return await read_manifest(store, run_id, where)
        except NoInputError:
            if time.monotonic() >= until:
                raise
        await asyncio.sleep(MANIFEST_LOOK_S)


def earlier_busy_s(location: str, run_id: str) -> dict[str, float]:
    """Seconds that cases took in the latest finalized run beside this one; none for stores that cannot be listed."""
    root = Path(location)
    if is_remote(location) or not root.is_dir():
        return {}
    found = [p for p in root.glob(f"*/{objects.DURATIONS}") if p.parent.name != run_id]
    if not found:
        return {}
    try:
        durations = json.loads(max(found, key=lambda p: p.stat().st_mtime).read_text())
    except (OSError, ValueError):
        return {}
    return {str(k): float(v) for k, v in durations.items()} if isinstance(durations, dict) else {}


# --- working and finalizing ----------------------------------------------------------------------------------------


def worker_identity(concurrency: int) -> WorkerIdentity:
    host = socket.gethostname()
    return WorkerIdentity(
        name=f"{host}-{os.getpid()}-{secrets.token_hex(3)}",
        hostname=host,
        pid=os.getpid(),
        concurrency=concurrency,
        born=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    )


def build_worker(
    manifest: Manifest,
    queue: RunQueue,
    store: Store,
    environment: Mapping[str, str],
    *,
    concurrency: int | None = None,
    wait_s: float = 0.0,
    alive_file: Path | None = None,
) -> "tuple[Worker, DeepEvalScorer, WorkerIdentity]":
    settings = ManifestSettings.of(manifest)
    cases = concurrency or settings.workers.concurrency
    identity = worker_identity(cases)
    claiming = queue.claiming(identity, settings.workers)
    calls = build_calls(
        settings.judge, settings.limits, settings.retry, queue.redis, manifest.run_id, identity.name, environment
    )
    scorer = build_scorer(settings.metrics, calls, settings.judge, settings.retry)
    patience = build_patience()
    shared: dict[str, Any] = {
        "run_id": manifest.run_id,
        "worker": identity.name,
        "steering": queue.steering,
        "store": store,
        "scorer": scorer,
        "now": time.time,
    }
    executions = Executions(
        **shared,
        queue=claiming,
        patience=patience,
        max_attempts=settings.retry.case_attempts,
        backoff=Backoff(base_s=settings.retry.base_delay_s, max_s=settings.retry.max_delay_s),
        chance=random.random,
    )
    worker = Worker(
        queue=claiming,
        executions=executions,
        scorer=scorer,
        prober=Prober(**shared, interval_s=5.0),
        patience=patience,
        capacity=Capacity(
            cases=cases, size_bytes=int(settings.workers.max_mb_in_flight * 1e6), grace_s=settings.workers.grace_s
        ),
        lease_s=settings.workers.lease_s,
        unknown_for_s=wait_s,
        alive_file=alive_file,
        sleep=asyncio.sleep,
        now=time.monotonic,
        chance=random.random,
    )
    return worker, scorer, identity


def build_finalizer(store: Store, manifest: Manifest) -> Finalizer:
    return Finalizer(store, sheets=lambda folder: all_sheets(folder, manifest))


async def probe_store(store: Store, location: str) -> None:
    """StoreError before anything else is done when the store cannot be written, ConfigError when it would replace results."""
    try:
        await store.put(".writable", b"queue-eval\n")
    except StoreError as error:
        raise StoreError(f"{location}: {error}") from None
    if await store.create(".writable", b"queue-eval: created anew\n"):
        raise ConfigError(f"store: {location} knows no conditional writes; {REMEDY}")
