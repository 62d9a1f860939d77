"""The status of Jobs and pods, as the API server reports it. Pure."""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from queue_eval.core.errors import EXIT_FAILED, EXIT_INCONCLUSIVE
from queue_eval.kubernetes.names import CONTAINER, ROLE_LABEL, workers_number

Object = dict[str, Any]

FAILING_VERDICTS = (EXIT_FAILED, EXIT_INCONCLUSIVE)  # of a finalizer or driver: they fail its Job, and are no trouble
WORDS = 500  # characters of a pod's last ones
SETTLED_S = 10.0  # between the clocks of the API server and of Redis
_CODE = re.compile(r"exit code (\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSeen:
    name: str
    uid: str
    role: str
    number: int  # of a Job of workers; 0 otherwise
    parallelism: int
    suspended: bool
    indexed: bool  # static shards
    backoff_limit: int
    active: int
    succeeded: int
    failed: int
    ended: str | None  # Complete or Failed
    ended_at_s: float  # by the API server's clock; 0 while it has not
    reason: str  # why, in the API server's words
    message: str

    @property
    def code(self) -> int | None:
        """The exit code by which its failure policy ended it: the pod may be gone, and the Job's own words name it."""
        found = _CODE.search(self.message) if self.reason == "PodFailurePolicy" else None
        return int(found[1]) if found else None

    @property
    def has_verdict(self) -> bool:
        """Return whether this finalizer or driver ended with a verdict."""
        return self.ended == "Complete" or self.code in FAILING_VERDICTS

    @property
    def has_final_verdict(self) -> bool:
        """Return whether the run passed or failed, which a report of all cases alone can."""
        return self.has_verdict and self.code != EXIT_INCONCLUSIVE

    @classmethod
    def of(cls, job: Object) -> "JobSeen":
        meta, spec, status = job["metadata"], job["spec"], job.get("status") or {}
        # FailureTarget and SuccessCriteriaMet come first, while pods are still being ended
        names = {
            "Complete": "Complete",
            "SuccessCriteriaMet": "Complete",
            "Failed": "Failed",
            "FailureTarget": "Failed",
        }
        true = [c for c in status.get("conditions") or () if c["status"] == "True" and c["type"] in names]
        role = (meta.get("labels") or {}).get(ROLE_LABEL, "")
        return cls(
            name=meta["name"],
            uid=meta.get("uid", ""),
            role=role,
            number=workers_number(meta["name"]) if role == "worker" else 0,
            parallelism=spec.get("parallelism", 1),
            suspended=bool(spec.get("suspend")),
            indexed=spec.get("completionMode") == "Indexed",
            backoff_limit=spec.get("backoffLimit", 6),
            active=status.get("active") or 0,
            succeeded=status.get("succeeded") or 0,
            failed=status.get("failed") or 0,
            ended=names[true[0]["type"]] if true else None,
            ended_at_s=moment_s(true[0].get("lastTransitionTime")) if true else 0.0,
            reason=true[0].get("reason") or "" if true else "",
            message=true[0].get("message") or "" if true else "",
        )

    @property
    def may_grow(self) -> bool:
        """After one success the controller replaces and adds nothing."""
        return not self.ended and not self.succeeded


def moment_s(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def said_at_s(event: Object) -> float:
    """Return when the event was reported last."""
    series = event.get("series") or {}
    return moment_s(series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PodEnd:
    code: int
    reason: str  # Completed, Error, OOMKilled …
    message: str  # its last words
    disrupted: bool  # evicted, preempted, drained: not its own doing

    @property
    def last_words(self) -> str:
        """The error among the last lines of its log, or the last of them."""
        lines = [line for line in self.message.splitlines() if line.strip()]
        bodies = [json_body(line) for line in lines]
        errors = [str(body.get("message")) for body in bodies if body.get("event") == "error"]
        plain = [line for line, body in zip(lines, bodies, strict=True) if not body]
        return ([*lines, *plain, *errors] or [""])[-1][:WORDS]


def json_body(line: str) -> Object:
    """Of a log; {} for a line that is none."""
    if not line.startswith("{"):
        return {}
    try:
        body = json.loads(line)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def pod_end(pod: Object) -> PodEnd | None:
    """How its container ended, or None while it has not."""
    status = pod.get("status") or {}
    disrupted = _is(pod, "DisruptionTarget", "True")
    for container in status.get("containerStatuses") or ():
        if container["name"] == CONTAINER and (ended := (container.get("state") or {}).get("terminated")):
            return PodEnd(
                code=ended["exitCode"],
                reason=ended.get("reason") or "",
                message=(ended.get("message") or "").strip(),
                disrupted=disrupted,
            )
    if status.get("phase") == "Failed":
        return PodEnd(
            code=-1, reason=status.get("reason") or "Failed", message=status.get("message") or "", disrupted=disrupted
        )
    return None


def is_lost(pod: Object) -> bool:
    """Return whether its node does not answer: the cluster sets the pod to not ready, while its containers are still
    reported as ready.
    """
    unready = _is(pod, "Ready", "False") and not (pod.get("spec") or {}).get("readinessGates")
    return unready and _is(pod, "ContainersReady", "True")


def is_running(pod: Object) -> bool:
    """As far as is known."""
    return not is_lost(pod) and any(
        c["name"] == CONTAINER and (c.get("state") or {}).get("running")
        for c in (pod.get("status") or {}).get("containerStatuses") or ()
    )


def role_of(body: Object) -> str:
    return str((body["metadata"].get("labels") or {}).get(ROLE_LABEL, ""))


def has_volumes(pod: Object) -> bool:
    """Return whether it has its volumes and network. The API server keeps events of earlier failures for an hour."""
    return _is(pod, "PodReadyToStartContainers", "True")


def is_scheduled(pod: Object) -> bool:
    return _is(pod, "PodScheduled", "True")


def _is(pod: Object, condition: str, status: str) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any((c["type"], c["status"]) == (condition, status) for c in conditions)


def claims_of(pod: Object) -> set[str]:
    """The volume claims that it waits for."""
    volumes = (pod.get("spec") or {}).get("volumes") or ()
    return {volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume}
