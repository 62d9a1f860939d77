"""Pods that nobody runs: a node whose kubelet only says that they do. What they cost the API server is what real ones cost it."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from queue_eval.core.errors import EXIT_INTERRUPTED
from queue_eval.kubernetes.cluster import Cluster
from tests.cluster import local_cluster
from tests.cluster.local_cluster import BIN, KUBECONFIG, STATE

NODE = "crowd"
TAINT = {"key": "queue-eval/pretended", "value": "true", "effect": "NoSchedule"}
PLACED = {
    "nodeSelector": {"kubernetes.io/hostname": NODE},
    "tolerations": [{**TAINT, "operator": "Equal"}],
}

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


def _stage(name: str, phases: list[str], *, leaving: bool, then: dict[str, Any]) -> dict[str, Any]:
    wanted = [
        {"key": ".metadata.deletionTimestamp", "operator": "Exists" if leaving else "DoesNotExist"},
        {"key": ".status.phase", "operator": "In", "values": phases},
    ]
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
            "selector": {"matchExpressions": wanted},
            "next": then,
        },
    }


def _stages() -> str:
    """A pod runs until it is deleted; then it leaves as a worker does on SIGTERM."""
    stages = [
        _stage("runs", ["Pending"], leaving=False, then={"statusTemplate": _RUNNING}),
        _stage("leaves", ["Pending", "Running"], leaving=True, then={"statusTemplate": _ENDED}),
        _stage("is-gone", ["Failed", "Succeeded"], leaving=True, then={"delete": True}),
    ]
    return "\n---\n".join(map(json.dumps, stages))


@contextlib.contextmanager
def pretended_node(cluster: Cluster) -> Iterator[None]:
    """With room for a thousand pods."""
    room = {"cpu": "1000", "memory": "1Ti", "pods": "1000"}
    ready = {"type": "Ready", "status": "True", "reason": "Pretended"}
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}},
        "spec": {"taints": [TAINT]},
    }
    cluster._patiently("POST", "/api/v1/nodes", body=node)
    status = {"status": {"capacity": room, "allocatable": room, "conditions": [ready]}}
    cluster._patiently("PATCH", f"/api/v1/nodes/{NODE}/status", body=status)
    config = STATE / "crowd.yaml"
    config.write_text(_stages())
    local_cluster.start(
        "kwok", BIN / "kwok", "--kubeconfig", KUBECONFIG, "--config", config, f"--manage-single-node={NODE}",
        "--node-lease-duration-seconds=40", "--server-address=127.0.0.1:0",
    )  # fmt: skip
    try:
        yield
    finally:
        cluster._patiently("DELETE", f"/api/v1/nodes/{NODE}", body={})
        local_cluster.stop("kwok")
