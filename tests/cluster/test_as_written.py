"""docs/how-to/kubernetes.md, word for word: its five commands with an image from a registry, its overlays, its night, in the namespace that the manifests name.

What a cluster's administrator would have seen to is done beforehand: two volumes, and a judge behind the name that the examples call it by.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from queue_eval.kubernetes.cluster import Cluster, connect
from testkit.command import CANARY, Done
from testkit.measured import ROOT
from testkit.provider.server import Provider
from testkit.provider.wire import always
from tests.cluster import local_cluster
from tests.cluster.checkout import Checkout
from tests.cluster.conftest import is_new
from tests.cluster.image import REDIS_IMAGE
from tests.cluster.place import MACHINE, STORE
from tests.cluster.registry import registry
from tests.cluster.stage import Stage

pytestmark = pytest.mark.alone

NAMESPACE = "queue-eval"
CORE, RBAC = f"/api/v1/namespaces/{NAMESPACE}", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"
PLATFORM = ROOT / "k8s" / "base" / "platform"
REDIS_USER_ID = 10002


@pytest.fixture(scope="module")
def checkout(cluster: Cluster, kubeconfig: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    if kubeconfig != str(local_cluster.KUBECONFIG):
        pytest.skip(
            f"a cluster that others use may have a namespace {NAMESPACE}, and does not reach a registry on this machine's loopback"
        )
    stateful_set = list(yaml.safe_load_all((PLATFORM / "redis.yaml").read_text()))[-1]
    local_cluster.tag(REDIS_IMAGE, stateful_set["spec"]["template"]["spec"]["containers"][0]["image"])
    volumes = [volume("store", STORE, "ReadWriteMany", "20Gi"), volume("redis", redis_folder(), "ReadWriteOnce", "2Gi")]
    for body in volumes:
        is_new(cluster, "/api/v1/persistentvolumes", body)
    with registry() as host:
        words = {"REGISTRY": host, "JUDGE_API_KEY=…": f"JUDGE_API_KEY={CANARY}"}
        yield Checkout.made(tmp_path_factory.mktemp("user"), words, kubeconfig)


def redis_folder() -> Path:
    folder = STORE / "redis-as-written"
    shutil.rmtree(folder, ignore_errors=True)  # of a first try
    folder.mkdir()
    os.chown(folder, REDIS_USER_ID, REDIS_USER_ID)
    return folder


def volume(name: str, folder: Path, mode: str, size: str) -> dict[str, Any]:
    spec = {"accessModes": [mode], "capacity": {"storage": size}, "hostPath": {"path": str(folder)}}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"as-written-{name}"}, "spec": spec}


@pytest.fixture(scope="module")
def platform(checkout: Checkout) -> Checkout:
    """The first four of the five commands."""
    commands = checkout.commands("Five commands on any cluster")
    assert len(commands) == 5
    for command in commands[:4]:
        must(checkout.typed(command))
    return checkout


def ends_red(done: Done) -> None:
    """The examples' gate asks for more than a judge that counts words thinks of the examples' answers: red is a verdict too."""
    assert (done.code, "Faithfulness mean 0.667 is below 0.7" in done.out) == (1, True), f"{done.out}\n{done.err}"


def must(done: Done) -> str:
    assert done.code == 0, f"{done.out}\n{done.err}"
    return done.out


@pytest.fixture
def user(platform: Checkout, kubeconfig: str, tmp_path: Path) -> Iterator[Stage]:
    """With a judge of the tests' own at http://judge:8000/v1."""
    cluster = connect(namespace=NAMESPACE)
    provider = Provider(host=MACHINE, keep_bodies=False).start()
    judge = judge_at(provider)
    for path, body in judge:
        assert is_new(cluster, path, body)
    yield Stage("first", tmp_path, provider, cluster, kubeconfig)
    for path, body in reversed(judge):
        cluster._patiently("DELETE", f"{path}/{body['metadata']['name']}")
    provider.close()


def judge_at(provider: Provider) -> list[tuple[str, dict[str, Any]]]:
    """A Service whose endpoint is not a pod."""
    host, port = provider.url.removeprefix("http://").removesuffix("/v1").split(":")
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "judge"},
        "spec": {"ports": [{"name": "http", "port": 8000}]},
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "judge-1", "labels": {"kubernetes.io/service-name": "judge"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": int(port)}],
        "endpoints": [{"addresses": [host]}],
    }
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
    return [(f"{CORE}/services", service), (slices, endpoints)]


@pytest.mark.core
def test_five_commands_and_what_one_asks_of_a_run(platform: Checkout, user: Stage) -> None:
    mine = platform.folder / "my-eval"
    mine.mkdir()
    for file in ("eval.yaml", "cases.jsonl"):
        (mine / file).write_text((platform.folder / "k8s" / "base" / file).read_text())
    platform.edited("my-eval/eval.yaml", "image: queue-eval", f"image: {platform.words['REGISTRY']}/queue-eval:0.1.0")
    ends_red(platform.typed(platform.commands("Five commands on any cluster")[4]))
    cases = len((mine / "cases.jsonl").read_text().splitlines())
    user.audited(cases)
    pulled = [pod["spec"]["containers"][0]["image"] for pod in user.pods()]
    assert pulled
    assert set(pulled) == {f"{platform.words['REGISTRY']}/queue-eval:0.1.0"}
    ends_red(platform.typed("queue-eval k8s wait first -n queue-eval"))
    for verb in ("status", "logs --role worker -f", "delete"):
        assert must(platform.typed(f"queue-eval k8s {verb} first -n queue-eval")), verb
    assert user.pods() == []


@pytest.fixture
def manifests(platform: Checkout) -> Checkout:
    """With the image where this user has it."""
    for file in ("base/kustomization.yaml", "overlays/nightly/kustomization.yaml", "overlays/nightly/eval.yaml"):
        path = platform.folder / "k8s" / file
        path.write_text(path.read_text().replace("ghcr.io/your-org", platform.words["REGISTRY"]))
    return platform


def test_a_run_by_kubectl_alone(manifests: Checkout, user: Stage) -> None:
    user.run_id = "example"
    must(manifests.typed("kubectl apply --server-side -k k8s/overlays/pull-request"))
    ends_red(manifests.typed("queue-eval k8s wait example -n queue-eval"))
    user.audited(len((manifests.folder / "k8s/base/cases.jsonl").read_text().splitlines()))


def test_a_night_that_is_given_its_commit_and_leaves_redis_alone(manifests: Checkout, user: Stage) -> None:
    before = redis_pod(user)
    manifests.edited("k8s/overlays/nightly/eval.yaml", "workers: 8", "workers: 2")  # two cores
    must(manifests.typed("kubectl apply --server-side -k k8s/overlays/nightly"))
    (patch,) = manifests.commands("A nightly")
    must(manifests.typed(patch, SHA="0123abc"))
    user.run_id = "nightly-by-hand"
    must(manifests.typed(f"kubectl create job --from=cronjob/nightly {user.run_id} -n queue-eval"))
    night_is_over(manifests, user)
    (another,) = manifests.commands("Exit codes and Job states")
    must(manifests.typed(another.replace("nightly-29927140", user.run_id)))
    night_is_over(manifests, user)
    assert redis_pod(user) == before


def night_is_over(manifests: Checkout, user: Stage) -> None:
    ends_red(manifests.typed(f"queue-eval k8s wait {user.run_id} -n queue-eval"))
    user.audited(len((manifests.folder / "k8s/overlays/nightly/cases.jsonl").read_text().splitlines()))
    assert json.loads((user.store / "report.json").read_text())["commit_sha"] == "0123abc"


def redis_pod(user: Stage) -> str:
    uid: str = user.cluster._patiently("GET", f"{CORE}/pods/redis-0")["metadata"]["uid"]
    return uid


def as_operator(stage: Stage, folder: Path) -> None:
    """From now on the client may do what operator.yaml grants, and nothing else."""
    (role,) = yaml.safe_load_all((PLATFORM / "operator.yaml").read_text())
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operator"}}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "operator"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role["metadata"]["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": NAMESPACE}],
    }
    for path, body in ((f"{CORE}/serviceaccounts", account), (f"{RBAC}/rolebindings", binding)):
        is_new(stage.cluster, path, body)
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = stage.cluster._patiently("POST", f"{CORE}/serviceaccounts/operator/token", body=request)
    config = yaml.safe_load(Path(stage.kubeconfig).read_text())
    config["users"] = [{"name": user["name"], "user": {"token": answer["status"]["token"]}} for user in config["users"]]
    kubeconfig = folder / "operator"
    kubeconfig.write_text(json.dumps(config))
    stage.kubeconfig = str(kubeconfig)


TUNE = "kubectl exec -n queue-eval job/qe-RUN-finalizer -- queue-eval tune RUN --rpm 300 --store /store"


def test_with_no_more_than_the_operators_role_runs_are_carried_on_the_platforms_redis(
    platform: Checkout, user: Stage, tmp_path: Path
) -> None:
    as_operator(user, tmp_path)
    own = {
        "secrets": ["judge-credentials", "redis-producer"],
        "worker_secrets": ["judge-credentials", "redis-worker"],
        "finalizer_secrets": ["redis-producer"],
        "worker_redis_url": "redis://qe-worker@redis:6379/0",
    }
    sections: dict[str, Any] = {"kubernetes": own, "redis": {"url": "redis://qe-producer@redis:6379/0"}}
    user.run_id = "operators"
    user.provider.latency = always(1.0)
    user.write(24, **sections)
    user.submit()
    user.until(lambda: user.stored >= 2)
    assert TUNE in (platform.folder / "docs" / "how-to" / "kubernetes.md").read_text()
    assert "300" in must(platform.typed(TUNE.replace("RUN", user.run_id)))  # as a user who may do more
    for verb, *rest in (["scale", "3"], ["reconcile"], ["logs", "--tail", "5"]):
        done = user.k8s(verb, user.run_id, *rest)
        assert done.code == 0, done.err
    assert user.verdict() == 0
    user.audited(24)
    assert user.status()["report"]["verdict"] == "pass"
    assert user.k8s("delete", user.run_id).code == 0

    user.run_id = "operators-cancelled"
    user.provider.latency = always(6.0)  # none is done before all are stopped
    user.write(24, **sections)
    user.submit()
    user.until(user.running)  # by then nothing need be enqueued
    assert user.k8s("cancel", user.run_id).code == 0
    assert user.verdict() == 2, user.k8s("logs", user.run_id, "--role", "abort").out
