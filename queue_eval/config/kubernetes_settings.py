"""The Kubernetes section of eval.yaml."""

from typing import Any, Literal

from pydantic import Field, field_validator

from queue_eval.config.redis_settings import without_password
from queue_eval.core.settings.section import Section


class KubernetesSettings(Section):
    """How `queue-eval k8s` carries a run out; no part of the run itself."""

    image: str = Field(min_length=1, description="queue-eval's image, best by digest")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    workers: int = Field(4, ge=0, le=10_000, description="pods of workers. `queue-eval k8s scale` changes it")
    secrets: tuple[str, ...] = Field(
        (), description="Secrets whose keys become environment variables of the pods: the judge's key, passwords"
    )
    worker_secrets: tuple[str, ...] | None = Field(
        None, description="of the workers alone, where Redis has a user for each role. Otherwise `secrets`"
    )
    finalizer_secrets: tuple[str, ...] | None = Field(
        None, description="of the finalizer alone, which asks no judge and needs no key of one. Otherwise `secrets`"
    )
    worker_redis_url: str | None = Field(
        None, description="of the workers alone, such as redis://qe-worker@redis:6379/0. Otherwise redis.url"
    )
    volume_claim: str | None = Field(
        None, description="a ReadWriteMany claim for results when store is a directory. Pods see it as /store"
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
    queue: str | None = Field(None, description="Kueue's local queue. Workers then wait for their quota")
    deadline_s: int = Field(6 * 3600, gt=0, description="a run that takes longer is ended")
    keep_s: int = Field(3 * 86400, ge=0, description="finished Jobs, their pods and logs stay this long")
    liveness_s: float = Field(
        300.0,
        gt=0,
        description=(
            "a worker whose calls neither wait for the limiter nor end for this long is restarted. At least a minute"
            " more than retry.call_timeout_s, whatever is written here"
        ),
    )
    pod: dict[str, Any] = Field(
        default_factory=dict,
        description=(
            "merged into every pod's spec: nodeSelector, tolerations, hostNetwork, runtimeClassName …, with volumes and"
            " securityContext beside ours"
        ),
    )

    mounts: tuple[dict[str, Any], ...] = Field(
        (),
        description=(
            "in our container, as its volumeMounts are written: of volumes that stand under pod.volumes, such as a"
            " model's weights"
        ),
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
        return without_password(url)
