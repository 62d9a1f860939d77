"""What stands in the cluster of the tests besides the runs: path of its collection, and body."""

import base64
from typing import Any

from tests.cluster.local_cluster import STATE
from tests.cluster.place import LOCAL_POD, NAMESPACE, NODE_ADDRESS, STORE

Body = tuple[str, dict[str, Any]]

CORE, RBAC = f"/api/v1/namespaces/{NAMESPACE}", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"


def namespace() -> Body:
    """Privileged, because hostNetwork is; the manifests are held against `restricted` elsewhere."""
    return "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}


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


def redis_pod(image: str, port: int) -> Body:
    """With an append-only file on the node, so that it may be killed; a StatefulSet brings it back."""
    labels = {"app": "redis"}
    command = [
        "redis-server",
        "--port",
        str(port),
        "--bind",
        NODE_ADDRESS,
        "--protected-mode",
        "no",
        "--appendonly",
        "yes",
        "--save",
        "",
        "--dir",
        "/data",
    ]
    container = {
        "name": "redis",
        "image": image,
        "imagePullPolicy": "Never",
        "command": command,
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    volume = {"name": "data", "hostPath": {"path": str(STATE / "redis"), "type": "DirectoryOrCreate"}}
    pod = {**LOCAL_POD, "terminationGracePeriodSeconds": 1, "containers": [container], "volumes": [volume]}
    spec = {
        "serviceName": "redis",
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    body = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "redis"}, "spec": spec}
    return f"/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets", body


def driver_rights() -> list[Body]:
    """k8s/base/platform/driver.yaml, in the namespace of the tests."""
    import yaml

    from loadtest.measured import ROOT

    found = []
    for body in yaml.safe_load_all((ROOT / "k8s" / "base" / "platform" / "driver.yaml").read_text()):
        kind = body["kind"]
        path = f"{CORE}/serviceaccounts" if kind == "ServiceAccount" else f"{RBAC}/{kind.lower()}s"
        found.append((path, body))
    return found
