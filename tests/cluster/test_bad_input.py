"""What is wrong is found and named within a minute, and nothing is lost."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from queue_eval.core.errors import JudgeRefusedError, StoreError
from queue_eval.kubernetes.cluster import connect
from queue_eval.kubernetes.names import run_name
from testkit.command import CANARY, Done
from tests.cluster.objects import CORE, secret
from tests.cluster.place import NAMESPACE, REDIS_URL, STORE
from tests.cluster.stage import SMALL, Stage

WITHIN_S = 60


def tried(stage: Stage, **kubernetes: object) -> Done:
    stage.write(4, kubernetes=kubernetes)
    return stage.k8s(
        "submit", "eval.yaml", "--run-id", stage.run_id, "--wait", "--blocked-timeout", "8", timeout_s=WITHIN_S
    )


@pytest.mark.core
def test_a_yaml_that_is_wrong_is_reported_before_anything_is_created(stage: Stage) -> None:
    path = stage.write(4)
    path.write_text(path.read_text().replace('"volume_claim": "queue-eval-store"', '"volume_clam": "x"'))
    done = stage.k8s("submit", "eval.yaml", "--run-id", stage.run_id)
    assert (done.code, "did you mean volume_claim" in done.err) == (78, True), done.err
    stage.write(4, redis={}, kubernetes={"volume_claim": None})
    done = stage.k8s("submit", "eval.yaml", "--run-id", stage.run_id)
    assert done.code == 78
    assert "redis.url" in done.err
    assert "kubernetes.volume_claim" in done.err
    assert stage.jobs() == []


def test_what_the_api_server_would_not_take_is_reported_before_anything_is_created(stage: Stage) -> None:
    for kubernetes, named in (
        ({"requests": {"cpu": "lots"}}, "quantities must match"),
        ({"limits": {"memory": "10Mi"}, "requests": {"memory": "20Mi"}}, "less than or equal to memory limit"),
        ({"secrets": ["Not_A_Name"]}, "Not_A_Name"),
        ({"pod": {"tolerations": [{"operator": "Perhaps"}]}}, "Perhaps"),
    ):
        stage.write(4, kubernetes=kubernetes)
        done = stage.k8s("submit", "eval.yaml", "--run-id", stage.run_id)
        assert (done.code, named in done.err, "Nothing was created" in done.err) == (78, True, True), done.err
        assert stage.jobs() == []
        assert stage.cluster.get("configmaps", run_name(stage.run_id)) is None


@pytest.mark.core
def test_a_namespace_that_is_not_there(stage: Stage) -> None:
    stage.write(4)
    done = stage.k8s("submit", "eval.yaml", "--run-id", stage.run_id, namespace="never-made")
    assert (done.code, 'namespaces "never-made" not found' in done.err) == (78, True), done.err


def test_a_run_id_that_belongs_to_other_cases(stage: Stage) -> None:
    stage.write(4)
    assert stage.k8s("submit", "eval.yaml", "--run-id", stage.run_id, "--workers", "0").code == 0
    stage.write(5)
    done = stage.k8s("submit", "eval.yaml", "--run-id", stage.run_id)
    assert (done.code, "was submitted with another eval.yaml or other cases" in done.err) == (65, True), done.err


def test_a_missing_secret(stage: Stage) -> None:
    stage.secrets = ["never-made"]
    stage.write(4)
    # as patient as it is by default
    done = stage.k8s("submit", "eval.yaml", "--run-id", stage.run_id, "--wait", timeout_s=WITHIN_S)
    assert (done.code, 'secret "never-made" not found' in done.err) == (69, True), done.err
    path, body = secret("never-made", {"JUDGE_API_KEY": "sk-canary-0123456789abcdef"})
    stage.cluster._patiently("POST", path, body=body)
    assert stage.verdict() == 0
    stage.audited(4)
    stage.cluster._patiently("DELETE", f"{path}/never-made")


def test_an_image_that_cannot_be_pulled(stage: Stage) -> None:
    done = tried(stage, image="localhost/no-such-image:1")
    assert (done.code, "the image localhost/no-such-image:1 cannot be pulled" in done.err) == (69, True), done.err
    status = stage.k8s("status", stage.run_id)
    assert "TROUBLE" in status.out
    assert "cannot be pulled" in status.out


def test_a_pod_that_no_node_takes(stage: Stage) -> None:
    done = tried(stage, requests={"cpu": "1000", "memory": "10Mi"})
    assert (done.code, "no node takes it" in done.err) == (69, True), done.err


def test_a_volume_claim_that_is_not_there(stage: Stage) -> None:
    done = tried(stage, volume_claim="never-claimed")
    assert (done.code, "never-claimed" in done.err) == (69, True), done.err


@pytest.mark.alone
def test_a_quota_that_is_exceeded(stage: Stage) -> None:
    with quota(stage, "1"):
        done = tried(stage, requests=SMALL)
        assert (done.code, "its pods cannot be created" in done.err, "exceeded quota" in done.err) == (69, True, True), done.err  # fmt: skip
    assert stage.verdict() == 0


@contextmanager
def quota(stage: Stage, pods: str) -> Iterator[None]:
    body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": pods}}}
    stage.cluster._patiently("POST", f"{CORE}/resourcequotas", body=body)
    try:
        yield
    finally:
        stage.cluster._patiently("DELETE", f"{CORE}/resourcequotas/q")


@pytest.mark.alone
def test_a_store_that_the_pods_cannot_write(stage: Stage) -> None:
    os.chown(STORE, 0, 0)
    STORE.chmod(0o755)
    try:
        done = tried(stage)
    finally:
        os.chown(STORE, 10001, 10001)
    assert (done.code, "Permission denied" in done.err) == (StoreError.exit_code, True), done.err
    stage.submit()  # what has failed is made anew
    assert stage.verdict() == 0


def test_a_redis_that_is_not_there(stage: Stage) -> None:
    stage.write(4, redis={"url": "redis://127.0.0.1:9/0"})
    done = stage.k8s(
        "submit", "eval.yaml", "--run-id", stage.run_id, "--wait", "--blocked-timeout", "8", timeout_s=WITHIN_S
    )
    assert "redis at redis://127.0.0.1:9/0" in done.err, done.err
    assert done.code in (69, 78)


def test_a_redis_that_refuses_the_password(stage: Stage) -> None:
    unknown_user = REDIS_URL.replace("//", "//nobody@")
    stage.write(4, redis={"url": unknown_user, "password_env": "JUDGE_API_KEY"})
    done = stage.k8s(
        "submit", "eval.yaml", "--run-id", stage.run_id, "--wait", "--blocked-timeout", "8", timeout_s=WITHIN_S
    )
    assert (done.code, "redis refuses us" in done.err) == (78, True), done.err
    assert CANARY not in done.out + done.err


@pytest.mark.core
def test_a_judge_that_refuses_the_key(stage: Stage) -> None:
    from testkit.provider.wire import Fault

    stage.provider.fault = lambda _n, _b: Fault(401, body="no such key")
    done = tried(stage)
    assert (done.code, "401" in done.err) == (JudgeRefusedError.exit_code, True), done.err
    stage.provider.fault = lambda _n, _b: None
    stage.submit()  # what has failed is made anew
    assert stage.verdict() == 0


def test_without_rights_the_missing_verb_is_named(stage: Stage, tmp_path: Path) -> None:
    stage.write(4)
    config = yaml.safe_load(Path(stage.kubeconfig).read_text())
    # system:anonymous may nothing
    stage.kubeconfig = str(tmp_path / "kubeconfig")
    config["users"] = [{"name": user["name"], "user": {"username": "nobody"}} for user in config["users"]]
    Path(stage.kubeconfig).write_text(json.dumps(config))
    done = stage.k8s("submit", "eval.yaml", "--run-id", stage.run_id)
    assert done.code == 78, done.err
    assert 'cannot create resource "configmaps"' in done.err


def test_without_a_cluster_there_is_one_clear_message(stage: Stage, tmp_path: Path) -> None:
    stage.write(4)
    stage.kubeconfig = str(tmp_path / "absent")
    done = stage.k8s("status", stage.run_id)
    assert (done.code, "no cluster is configured" in done.err, done.err.count("\n")) == (78, True, 1), done.err


def test_a_server_that_is_not_the_trusted_one(stage: Stage, tmp_path: Path) -> None:
    stage.write(4)
    config = yaml.safe_load(Path(stage.kubeconfig).read_text())
    stage.kubeconfig = str(tmp_path / "kubeconfig")
    config["clusters"] = [
        {"name": c["name"], "cluster": {"server": c["cluster"]["server"]}} for c in config["clusters"]
    ]
    Path(stage.kubeconfig).write_text(json.dumps(config))
    done = stage.k8s("status", stage.run_id)
    assert (done.code, "certificate-authority" in done.err, done.err.count("\n")) == (78, True, 1), done.err


def test_an_unknown_context(stage: Stage) -> None:
    done = stage.k8s("status", stage.run_id, "--context", "nowhere")
    assert (done.code, "nowhere" in done.err) == (78, True), done.err


@pytest.fixture(autouse=True)
def the_namespace_is_the_tests_own() -> None:
    assert connect(namespace=NAMESPACE).namespace == NAMESPACE
