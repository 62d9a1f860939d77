"""Pods that no machine runs: a node whose kubelet only reports that they run. What they cost the API server is what real ones cost it."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from queue_eval.core.errors import EXIT_INTERRUPTED
from queue_eval.kubernetes.cluster import Cluster
from tests.cluster import machine
from tests.cluster.local_cluster import KUBECONFIG
from tests.cluster.machine import BIN, STATE

NODE = "crowd"
TAINT = {"key": "queue-eval/pretended", "value": "true", "effect": "NoSchedule"}
PLACED = {
    "nodeSelector": {"kubernetes.io/hostname": NODE},
    "tolerations": [{**TAINT, "operator": "Equal"}],
}

_READY = """
conditions:
- {type: Ready, status: "True", reason: Pretended, lastHeartbeatTime: {{ Now | Quote }}, lastTransitionTime: {{ Now | Quote }}}
"""
_RUNNING = """
phase: Running
startTime: {{ Now | Quote }}
conditions:
- {type: Ready, status: "True", lastTransitionTime: {{ Now | Quote }}}
containerStatuses:
{{ range .spec.containers }}
- {name: {{ .name }}, image: {{ .image }}, ready: true, restartCount: 0, state: {running: {startedAt: {{ Now | Quote }}}}}
{{ end }}
"""
_ENDED = f"""
phase: Failed
containerStatuses:
{{{{ range .spec.containers }}}}
- {{name: {{{{ .name }}}}, image: {{{{ .image }}}}, ready: false, restartCount: 0, state: {{terminated: {{exitCode: {EXIT_INTERRUPTED}, reason: Error, finishedAt: {{{{ Now | Quote }}}}}}}}}}
{{{{ end }}}}
"""


def _stage(name: str, kind: str, then: dict[str, Any], *wanted: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": list(wanted)},
            "next": then,
        },
    }


def _in_phase(*phases: str) -> dict[str, Any]:
    return {"key": ".status.phase", "operator": "In", "values": list(phases)}


def _stages() -> str:
    """A pod runs until it is deleted; then it leaves as a worker does on SIGTERM."""
    stays = {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"}
    leaves = {"key": ".metadata.deletionTimestamp", "operator": "Exists"}
    unready = {"key": ".status.conditions.[].type", "operator": "NotIn", "values": ["Ready"]}
    stages = [
        _stage("is-ready", "Node", {"statusTemplate": _READY}, unready),
        _stage("runs", "Pod", {"statusTemplate": _RUNNING}, stays, _in_phase("Pending")),
        _stage("leaves", "Pod", {"statusTemplate": _ENDED}, leaves, _in_phase("Pending", "Running")),
        _stage("is-gone", "Pod", {"delete": True}, leaves, _in_phase("Failed", "Succeeded")),
    ]
    return "\n---\n".join(map(json.dumps, stages))


@contextlib.contextmanager
def pretended_node(cluster: Cluster) -> Iterator[None]:
    """With room for a thousand pods."""
    room = {"cpu": "1000", "memory": "1Ti", "pods": "1000"}
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}},
        "spec": {"taints": [TAINT]},
    }
    cluster._patiently("POST", "/api/v1/nodes", body=node)
    status = {"status": {"capacity": room, "allocatable": room}}
    cluster._patiently("PATCH", f"/api/v1/nodes/{NODE}/status", body=status)
    config = STATE / "crowd.yaml"
    config.write_text(_stages())
    machine.start(
        "kwok", BIN / "kwok", "--kubeconfig", KUBECONFIG, "--config", config, f"--manage-single-node={NODE}",
        "--node-lease-duration-seconds=40", "--server-address=127.0.0.1:0",
    )  # fmt: skip
    try:
        yield
    finally:
        cluster._patiently("DELETE", f"/api/v1/nodes/{NODE}", body={})
        machine.stop("kwok")
