"""What stands in the cluster of the tests besides the runs: path of its collection, and body."""

import base64
from typing import Any

from tests.cluster.place import NAMESPACE, REDIS_FOLDER, RESTRICTED, STORE, USER_ID

Body = tuple[str, dict[str, Any]]

CORE, RBAC = f"/api/v1/namespaces/{NAMESPACE}", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"


def namespace() -> Body:
    meta = {"name": NAMESPACE, "labels": RESTRICTED}
    return "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": meta}


def store_volume() -> list[Body]:
    size = {"storage": "1Gi"}
    shared = {"accessModes": ["ReadWriteMany"], "storageClassName": "manual"}
    volume = {**shared, "capacity": size, "hostPath": {"path": str(STORE)}}
    claim = {**shared, "volumeName": "queue-eval-store", "resources": {"requests": size}}
    meta = {"name": "queue-eval-store"}
    return [
        ("/api/v1/persistentvolumes", {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": meta, "spec": volume}),
        (f"{CORE}/persistentvolumeclaims", {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": claim}),
    ]  # fmt: skip


def secret(name: str, values: dict[str, str]) -> Body:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return f"{CORE}/secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def redis(image: str, node_port: int) -> list[Body]:
    """With an append-only file on the volume, so that it may be killed; a StatefulSet brings it back."""
    labels = {"app": "redis"}
    arguments = ["--protected-mode", "no", "--appendonly", "yes", "--save", "", "--dir", "/data"]
    container = {
        "name": "redis",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["redis-server", *arguments],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "store", "mountPath": "/data", "subPath": REDIS_FOLDER}],
    }
    pod = {
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "runAsUser": USER_ID, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "store", "persistentVolumeClaim": {"claimName": "queue-eval-store"}}],
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    stateful_set = {"serviceName": "redis", "selector": {"matchLabels": labels}, "template": template}
    ports = [{"port": 6379, "nodePort": node_port}]
    # a node that is not ready for a moment, as ours is at its start, takes no Redis away
    service = {"type": "NodePort", "selector": labels, "ports": ports, "publishNotReadyAddresses": True}
    meta = {"name": "redis"}
    return [
        (f"{CORE}/services", {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service}),
        (f"/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets", {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta, "spec": stateful_set}),
    ]  # fmt: skip


def driver_rights() -> list[Body]:
    """k8s/base/platform/driver.yaml, in the namespace of the tests."""
    import yaml

    from testkit.measured import ROOT

    found = []
    for body in yaml.safe_load_all((ROOT / "k8s" / "base" / "platform" / "driver.yaml").read_text()):
        kind = body["kind"]
        path = f"{CORE}/serviceaccounts" if kind == "ServiceAccount" else f"{RBAC}/{kind.lower()}s"
        found.append((path, body))
    return found
