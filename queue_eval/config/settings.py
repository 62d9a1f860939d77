"""What eval.yaml may say. The field descriptions are what editors show, by way of the JSON schema."""

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from queue_eval.config.limit_settings import LimitSettings, Section

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(gt=0)]


class MetricSettings(BaseModel):
    """A DeepEval metric; further keys are its constructor's parameters."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    type: str = Field(
        min_length=1,
        description="a DeepEval metric class such as FaithfulnessMetric or GEval, or package.module:Class of your own BaseMetric",
    )
    name: str | None = Field(
        None, min_length=1, max_length=100, description="the name in reports; otherwise the class name without Metric"
    )
    threshold: Fraction = Field(0.5, description="a case passes the metric from this score on")

    @property
    def reported_name(self) -> str:
        if self.name:
            return self.name
        class_name = self.type.rpartition(":")[2].rpartition(".")[2]
        return class_name.removesuffix("Metric") or class_name

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class PriceSettings(Section):
    input_per_million_usd: float = Field(ge=0)
    output_per_million_usd: float = Field(ge=0)


def _without_secrets(values: dict[str, Any], remedy: str) -> dict[str, Any]:
    for name in values:
        if re.search(r"key|secret|token$|password|credential", name, re.IGNORECASE):
            raise ValueError(f"{name}: a secret does not belong into the file; {remedy}")
    return values


class _Judge(Section):
    account: str = Field(
        "default", description="all runs on the same Redis with the same provider, account and model share one limiter"
    )
    price: PriceSettings | None = Field(
        None, description="what the model's tokens cost; without it the report says unpriced"
    )


class OpenAIJudge(_Judge):
    """Any OpenAI-compatible endpoint: OpenAI, Azure, vLLM, Ollama, LiteLLM, OpenRouter."""

    type: Literal["openai"]
    model: str = Field(min_length=1)
    base_url: str = Field(
        "https://api.openai.com/v1", pattern=r"^https?://", description="up to and without /chat/completions"
    )
    api_key_env: str | None = Field(None, description="the NAME of the environment variable that holds the key")
    api_key_header: str = Field("Authorization", pattern=r"^[A-Za-z0-9-]+$", description="api-key for Azure")
    query: dict[str, str] = Field(default_factory=dict, description="query parameters, such as api-version for Azure")
    temperature: float | None = Field(0.0, ge=0, le=2, description="null leaves it to the server")
    max_output_tokens: int | None = Field(None, gt=0)
    structured_output: Literal["auto", "json_schema", "json_object", "prompt"] = Field(
        "auto", description="auto begins with json_schema and steps down when the server lacks it"
    )

    @field_validator("base_url")
    @classmethod
    def _an_address_alone(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"{error}; write http(s)://HOST[:PORT]/…") from None
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                "credentials do not belong into the URL; name the key's environment variable as api_key_env"
            )
        if not parts.hostname or port == 0:
            found = "port 0 is none" if parts.hostname else "there is no host"
            raise ValueError(f"{found}; write http(s)://HOST[:PORT]/…")
        return url

    @field_validator("query")
    @classmethod
    def _no_secret_in_query(cls, query: dict[str, str]) -> dict[str, str]:
        return _without_secrets(query, "name the key's environment variable as api_key_env")

    allow_link_local: bool = Field(False, description="allow link-local and metadata addresses as base_url")


class ImportedJudge(_Judge):
    """Any DeepEval model by import path; its own retries are switched off."""

    type: Literal["import"]
    path: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="package.module:Class of a DeepEvalBaseLLM"
    )
    params: dict[str, Any] = Field(
        default_factory=dict,
        description="arguments of its constructor",
    )

    params_env: dict[str, str] = Field(
        default_factory=dict,
        description="arguments of its constructor whose values stand in environment variables: argument → NAME",
    )

    @field_validator("params")
    @classmethod
    def _no_secret_in_params(cls, params: dict[str, Any]) -> dict[str, Any]:
        return _without_secrets(params, "name its environment variable under params_env")

    @property
    def model(self) -> str:
        return self.path


class LexicalJudge(_Judge):
    """Offline and deterministic: compares words, numbers and negations. For trying things out, not for verdicts that matter."""

    type: Literal["lexical"]

    @property
    def model(self) -> str:
        return "lexical"


JudgeSettings = Annotated[OpenAIJudge | ImportedJudge | LexicalJudge, Field(discriminator="type")]


class RetrySettings(Section):
    call_attempts: int = Field(6, ge=1, le=100, description="requests for one judge call, the first included")
    case_attempts: int = Field(
        3,
        ge=1,
        le=100,
        description="failed deliveries of a case before it is dead; three that ended with their worker are too many as well",
    )
    invalid_answers: int = Field(
        2, ge=0, le=20, description="how often a judge call is repeated whose answer does not fit its schema"
    )
    base_delay_s: Seconds = 1.0
    max_delay_s: Seconds = 30.0
    call_timeout_s: Seconds = 120.0
    case_timeout_s: Seconds = Field(1800.0, description="without the time spent waiting for the limiter")


class WorkerSettings(Section):
    processes: int = Field(1, ge=1, le=256, description="worker processes of `queue-eval run`")
    concurrency: int = Field(32, ge=1, le=4096, description="cases in flight in one process")
    max_mb_in_flight: float = Field(64.0, gt=0, description="size of the cases in flight in one process")
    lease_s: float = Field(12.0, ge=1, le=3600, description="a worker that is silent for this long loses its cases")
    blocked_s: float = Field(
        300.0,
        ge=1,
        description="a worker whose event loop stands still for so long, and for a lease, ends as if it were killed; its cases go to others",
    )
    grace_s: float = Field(
        30.0, ge=0, description="after SIGTERM: time to finish what is in flight before it is released"
    )
    straggler_times: float = Field(
        3.0,
        ge=0,
        description="when nothing else is left, a case that runs so many times its expected duration is dispatched once more, to another worker; the first result counts; 0: never",
    )
    straggler_least_s: float = Field(30.0, ge=0, description="no case is a straggler before it has run this long")
    hold_timeout_s: float = Field(
        600.0, ge=0, description="`run` gives up when the judge has served nobody for this long; nothing is lost"
    )


def _without_password(url: str | None) -> str | None:
    if url and (urlsplit(url).password is not None or "password=" in urlsplit(url).query):
        raise ValueError(
            "a password does not belong into the file; name its environment variable as redis.password_env, or on a cluster its Secret"
        )
    return url


class RedisSettings(Section):
    url: str | None = Field(
        None,
        description="redis://HOST:PORT/DB, rediss://…, unix:///PATH; without it REDIS_URL, then a Redis of our own",
    )
    password_env: str | None = Field(
        None,
        description="the NAME of the environment variable that holds the password; otherwise QUEUE_EVAL_REDIS_PASSWORD",
    )
    retention_s: int = Field(
        14 * 86400, ge=3600, description="keys of a run that no worker works on expire after this long"
    )
    finalized_retention_s: int = Field(86400, ge=1, description="keys of a finalized run expire after this long")

    @field_validator("url")
    @classmethod
    def _no_secret(cls, url: str | None) -> str | None:
        return _without_password(url)


class KubernetesSettings(Section):
    """How `queue-eval k8s` carries a run out; no part of the run itself."""

    image: str = Field(min_length=1, description="queue-eval's image, best by digest")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    workers: int = Field(4, ge=0, le=10_000, description="pods of workers; `queue-eval k8s scale` changes it")
    secrets: tuple[str, ...] = Field(
        (), description="Secrets whose keys become environment variables of the pods: the judge's key, passwords"
    )
    worker_secrets: tuple[str, ...] | None = Field(
        None, description="of the workers alone, where Redis has a user for each role; otherwise `secrets`"
    )
    finalizer_secrets: tuple[str, ...] | None = Field(
        None, description="of the finalizer alone, which asks no judge and needs no key of one; otherwise `secrets`"
    )
    worker_redis_url: str | None = Field(
        None, description="of the workers alone, such as redis://qe-worker@redis:6379/0; otherwise redis.url"
    )
    volume_claim: str | None = Field(
        None, description="a ReadWriteMany claim for results when store is a directory; pods see it as /store"
    )
    dataset: str | None = Field(
        None,
        pattern=r"^/",
        description="the case file's place in the pods, when it is too large to be sent along (about 900 KB packed)",
    )
    requests: dict[str, str] = Field(
        default_factory=lambda: {"cpu": "250m", "memory": "256Mi"}, description="of each pod"
    )
    limits: dict[str, str] = Field(default_factory=lambda: {"memory": "1Gi"}, description="of each pod")
    queue: str | None = Field(None, description="Kueue's local queue; workers then wait for their quota")
    deadline_s: int = Field(6 * 3600, gt=0, description="a run that takes longer is ended")
    keep_s: int = Field(3 * 86400, ge=0, description="finished Jobs, their pods and logs stay this long")
    liveness_s: float = Field(
        300.0,
        gt=0,
        description="a worker whose calls neither wait for the limiter nor end for this long is restarted; at least a minute more than retry.call_timeout_s, whatever is written here",
    )
    pod: dict[str, Any] = Field(
        default_factory=dict,
        description="merged into every pod's spec: nodeSelector, tolerations, hostNetwork, runtimeClassName …; volumes and securityContext beside ours",
    )

    mounts: tuple[dict[str, Any], ...] = Field(
        (),
        description="in our container, as its volumeMounts are written: of volumes that stand under pod.volumes, such as a model's weights",
    )

    @field_validator("mounts")
    @classmethod
    def _each_has_a_place(cls, mounts: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for mount in mounts:
            if not all(isinstance(mount.get(key), str) for key in ("name", "mountPath")):
                raise ValueError(f"{mount} lacks a name or a mountPath; write it as a container's volumeMounts are")
        return mounts

    @field_validator("pod")
    @classmethod
    def _ours_alone(cls, pod: dict[str, Any]) -> dict[str, Any]:
        if ours := sorted({"containers", "restartPolicy", "terminationGracePeriodSeconds"} & pod.keys()):
            raise ValueError(
                f"{ours[0]} is queue-eval's own; remove it (image, requests, limits and workers.grace_s are settings)"
            )
        kinds = {"volumes": list, "securityContext": dict}
        if wrong := [name for name, kind in kinds.items() if not isinstance(pod.get(name, kind()), kind)]:
            raise ValueError(f"{wrong[0]} is no {kinds[wrong[0]].__name__}; write it as in a pod's spec")
        return pod

    @field_validator("worker_redis_url")
    @classmethod
    def _no_secret(cls, url: str | None) -> str | None:
        return _without_password(url)


class DatasetBounds(Section):
    max_cases: int = Field(1_000_000, gt=0)
    max_case_bytes: int = Field(2_000_000, gt=0, le=50_000_000)
    max_depth: int = Field(32, gt=0, le=200)
    max_decompression_ratio: int = Field(200, gt=0)


class MetricRuleSettings(Section):
    min_mean: Fraction | None = Field(None, description="of the scores that there are")
    min_pass_rate: Fraction | None = Field(
        None, description="of all cases: one that is dead or that the metric could not score has not passed"
    )


class GateSettings(Section):
    mode: Literal["warn", "block"] = Field(
        "block", description="warn: a failed gate is reported and the exit code stays 0"
    )
    metrics: dict[str, MetricRuleSettings] = Field(
        default_factory=dict, description="bounds for each metric, by its reported name"
    )
    max_error_rate: Fraction = Field(1.0, description="of metric results that gave no score")
    min_coverage: Fraction = Field(0.95, description="below this share of scored cases the verdict is inconclusive")


class Settings(Section):
    """eval.yaml"""

    dataset: str = Field(
        min_length=1,
        description="a .jsonl, .json or .csv file of cases (or .gz of one), relative to this file; - for standard input",
    )
    metrics: tuple[MetricSettings, ...] = Field(min_length=1)
    judge: JudgeSettings
    limits: LimitSettings = LimitSettings()
    retry: RetrySettings = RetrySettings()
    workers: WorkerSettings = WorkerSettings()
    store: str = Field(
        "runs",
        min_length=1,
        description="place for results and reports: a directory, relative to this file, or s3://bucket/prefix",
    )
    redis: RedisSettings = RedisSettings()
    kubernetes: KubernetesSettings | None = None
    gate: GateSettings = GateSettings()
    labels: dict[str, str] = Field(default_factory=dict, description="kept with the run")
    dataset_bounds: DatasetBounds = DatasetBounds()

    def frozen_part(self) -> dict[str, Any]:
        """What the manifest keeps: everything that decides the outcome, nothing about where it runs."""
        return self.model_dump(mode="json", exclude={"redis", "store", "dataset", "dataset_bounds", "kubernetes"})
