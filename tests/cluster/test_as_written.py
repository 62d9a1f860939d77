"""k8s/base/platform for real: its Redis with a user for each role, and its operator's Role, carry a whole run."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadtest.measured import ROOT
from loadtest.provider.wire import always
from tests.cluster.conftest import is_new
from tests.cluster.image import REDIS_IMAGE
from tests.cluster.objects import CORE, RBAC, secret
from tests.cluster.place import LOCAL_POD, NAMESPACE, NODE_ADDRESS
from tests.cluster.stage import Stage

PORT = 16381
NAME = "platform-redis"  # beside the other tests' own
PLATFORM = ROOT / "k8s" / "base" / "platform"


def redis_of_the_platform() -> list[tuple[str, dict[str, Any]]]:
    """redis.yaml, but for what this cluster's network, storage and images ask for. Nobody reaches a Service here."""
    config, _, stateful_set = yaml.safe_load_all((PLATFORM / "redis.yaml").read_text())
    config["metadata"]["name"] = stateful_set["metadata"]["name"] = stateful_set["spec"]["serviceName"] = NAME
    config["data"]["redis.conf"] += f"port {PORT}\nbind {NODE_ADDRESS}\n"
    labels = {"app.kubernetes.io/name": NAME}
    stateful_set["spec"] |= {"selector": {"matchLabels": labels}, "volumeClaimTemplates": []}
    stateful_set["spec"]["template"]["metadata"]["labels"] = labels
    pod = stateful_set["spec"]["template"]["spec"]
    pod |= LOCAL_POD
    container = pod["containers"][0]
    container |= {"image": REDIS_IMAGE, "imagePullPolicy": "Never"}
    container["ports"][0] |= {"containerPort": PORT, "hostPort": PORT}
    for probe in ("readinessProbe", "livenessProbe"):
        container[probe]["tcpSocket"]["host"] = NODE_ADDRESS
    pod["volumes"][1]["configMap"]["name"] = NAME
    pod["volumes"].append({"name": "data", "emptyDir": {}})
    sets = f"/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets"
    return [(f"{CORE}/configmaps", config), (sets, stateful_set)]


@pytest.fixture
def platform(stage: Stage) -> Iterator[Stage]:
    """As the docs have it: two Secrets with passwords, then what the platform consists of."""
    passwords = [
        secret(f"redis-{role}", {"QUEUE_EVAL_REDIS_PASSWORD": f"pw-{role}"}) for role in ("producer", "worker")
    ]
    objects = [*passwords, *redis_of_the_platform()]
    for path, body in objects:
        is_new(stage.cluster, path, body)
    stage.until(lambda: _ready(stage))
    yield stage
    for path, body in objects:
        stage.cluster._patiently("DELETE", f"{path}/{body['metadata']['name']}", body={})


def _ready(stage: Stage) -> bool:
    found = stage.cluster._patiently("GET", f"/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets/{NAME}")
    return bool(found["status"].get("readyReplicas"))


def as_operator(stage: Stage, folder: Path) -> None:
    """From now on the client may do what operator.yaml says, and nothing else."""
    role = yaml.safe_load((PLATFORM / "operator.yaml").read_text())
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operator"}}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "operator"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role["metadata"]["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": NAMESPACE}],
    }
    for path, body in (
        (f"{RBAC}/roles", role),
        (f"{CORE}/serviceaccounts", account),
        (f"{RBAC}/rolebindings", binding),
    ):
        is_new(stage.cluster, path, body)
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = stage.cluster._patiently("POST", f"{CORE}/serviceaccounts/operator/token", body=request)
    config = yaml.safe_load(Path(stage.kubeconfig).read_text())
    config["users"] = [{"name": user["name"], "user": {"token": answer["status"]["token"]}} for user in config["users"]]
    kubeconfig = folder / "operator"
    kubeconfig.write_text(json.dumps(config))
    stage.kubeconfig = str(kubeconfig)


def test_with_no_more_than_the_operators_role_runs_are_carried_on_the_platforms_redis(
    platform: Stage, tmp_path: Path
) -> None:
    as_operator(platform, tmp_path)
    users = {role: f"redis://qe-{role}@{NODE_ADDRESS}:{PORT}/0" for role in ("producer", "worker")}
    own = {
        "secrets": ["judge-credentials", "redis-producer"],
        "worker_secrets": ["judge-credentials", "redis-worker"],
        "worker_redis_url": users["worker"],
    }
    platform.provider.latency = always(0.3)
    platform.write(24, kubernetes=own, redis={"url": users["producer"]})
    platform.submit()
    platform.until(lambda: platform.stored >= 2)
    for verb, *rest in (["scale", "3"], ["reconcile"], ["logs", "--tail", "5"]):
        done = platform.k8s(verb, platform.run_id, *rest)
        assert done.code == 0, done.err
    assert platform.verdict() == 0
    platform.audited(24)
    assert platform.status()["report"]["verdict"] == "pass"
    assert platform.k8s("delete", platform.run_id).code == 0

    platform.run_id = f"{platform.run_id[:20].strip('-')}-c"
    platform.provider.latency = always(6.0)  # nobody is done before everybody is stopped
    platform.write(24, kubernetes=own, redis={"url": users["producer"]})
    platform.submit()
    platform.until(platform.running)  # by then nothing need be enqueued
    assert platform.k8s("cancel", platform.run_id).code == 0
    assert platform.verdict() == 2, platform.k8s("logs", platform.run_id, "--role", "abort").out
