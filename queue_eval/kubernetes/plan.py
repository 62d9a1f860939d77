"""What the objects of a run are made from: settings, without a cluster and without I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from queue_eval.config.kubernetes_settings import KubernetesSettings
from queue_eval.config.load import LoadedSettings
from queue_eval.core.errors import ConfigError
from queue_eval.core.location import is_remote
from queue_eval.wiring.allowed_judges import allowing

STORE_MOUNT = "/store"
INPUT_MOUNT = "/input"
INPUT_BYTES = 900_000  # a ConfigMap holds 1 MiB, its names and encoding included
SPARE_LIVENESS_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    run_id: str
    settings: KubernetesSettings
    store: str  # as the pods see it
    redis_url: str
    dataset: str  # as the pods see it
    workers_grace_s: float
    liveness_s: float
    commit_sha: str | None
    worker_environment: Mapping[str, str] = field(default_factory=dict)  # of the workers alone, nothing secret
    input_files: Mapping[str, bytes] = field(default_factory=dict)  # what the ConfigMap of the run carries

    @property
    def image(self) -> str:
        return self.settings.image

    def secrets_of(self, role: str) -> tuple[str, ...]:
        of_the_role = {"worker": self.settings.worker_secrets, "finalizer": self.settings.finalizer_secrets}
        apart = of_the_role.get(role)
        return self.settings.secrets if apart is None else apart

    def redis_url_of(self, role: str) -> str:
        return (self.settings.worker_redis_url if role == "worker" else None) or self.redis_url

    @property
    def volumes(self) -> list[dict[str, Any]]:
        claim = self.settings.volume_claim
        return [{"name": "store", "persistentVolumeClaim": {"claimName": claim}}] if claim else []


def plan_of(
    loaded: LoadedSettings,
    run_id: str,
    *,
    dataset: str,
    commit_sha: str | None,
    input_files: Mapping[str, bytes] | None = None,
) -> RunPlan:
    """ConfigError with one line per setting that the file lacks for a cluster.

    `dataset`: the case file's place in the pods.
    """
    settings, problems = loaded.settings, []
    kubernetes = settings.kubernetes
    if kubernetes is None:
        raise ConfigError(f"{loaded.path}: kubernetes: is missing; a cluster needs at least its image")
    store = settings.store
    if not is_remote(store):
        store = STORE_MOUNT
        if not kubernetes.volume_claim:
            problems.append(
                f"store: pods do not share the directory {settings.store!r}; write s3://BUCKET/PREFIX, or name a volume"
                " as kubernetes.volume_claim"
            )
    if not settings.redis.url or settings.redis.url.startswith("unix:"):
        problems.append("redis.url: is missing; name the Redis that the pods reach, such as redis://redis:6379/0")
    if (size := sum(map(len, (input_files or {}).values()))) > INPUT_BYTES:
        problems.append(
            f"dataset: {size:,} bytes, packed, are more than a ConfigMap carries ({INPUT_BYTES:,}); put the file onto"
            " the volume and name its place there as kubernetes.dataset"
        )
    if problems:
        raise ConfigError("\n".join(f"{loaded.path}: {problem}" for problem in problems))
    return RunPlan(
        run_id=run_id,
        settings=kubernetes,
        store=store,
        redis_url=settings.redis.url or "",
        dataset=dataset,
        workers_grace_s=settings.workers.grace_s,
        # a judge call that may take longer must not look like a worker that is stuck
        liveness_s=max(kubernetes.liveness_s, settings.retry.call_timeout_s + SPARE_LIVENESS_S),
        commit_sha=commit_sha,
        worker_environment=allowing(settings.judge, settings.metrics),
        input_files=input_files or {},
    )
