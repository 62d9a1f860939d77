"""The manifests, held against a real API server that enforces `restricted`: everything that can be applied is tried, nothing is kept."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from queue_eval.kubernetes.cluster import Cluster, Object
from queue_eval.kubernetes.errors import ClusterError
from testkit.measured import ROOT
from testkit.must_have import missing

pytestmark = [pytest.mark.alone, pytest.mark.core]

K8S = ROOT / "k8s"
NAMESPACE = "queue-eval-trial"  # not the manifests' own: a cluster that is used may hold that
OVERLAYS = sorted(path.parent for path in K8S.glob("overlays/*/kustomization.yaml"))
COMPONENTS = sorted(path.parent for path in K8S.glob("components/*/kustomization.yaml"))
# these change what the judge's component makes
NEEDS_JUDGE = ("gpu-time-slicing", "gpu-mig")

PATHS = {
    "ConfigMap": "/api/v1/namespaces/{ns}/configmaps",
    "Service": "/api/v1/namespaces/{ns}/services",
    "ServiceAccount": "/api/v1/namespaces/{ns}/serviceaccounts",
    "PersistentVolumeClaim": "/api/v1/namespaces/{ns}/persistentvolumeclaims",
    "Pod": "/api/v1/namespaces/{ns}/pods",
    "Job": "/apis/batch/v1/namespaces/{ns}/jobs",
    "CronJob": "/apis/batch/v1/namespaces/{ns}/cronjobs",
    "StatefulSet": "/apis/apps/v1/namespaces/{ns}/statefulsets",
    "Deployment": "/apis/apps/v1/namespaces/{ns}/deployments",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{ns}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{ns}/rolebindings",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{ns}/networkpolicies",
}


@pytest.fixture(scope="module")
def restricted(cluster: Cluster) -> Iterator[Cluster]:
    """A namespace as the manifests describe theirs."""
    namespace = yaml.safe_load((K8S / "base" / "platform" / "namespace.yaml").read_text())
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    namespace["metadata"]["name"] = NAMESPACE
    cluster._patiently("POST", "/api/v1/namespaces", body=namespace)
    yield cluster
    cluster._patiently("DELETE", f"/api/v1/namespaces/{NAMESPACE}")


def kustomized(folder: Path) -> list[Object]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        missing("kubectl")
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [body for body in yaml.safe_load_all(done.stdout) if body]


def with_component(tmp_path: Path, component: Path) -> list[Object]:
    """Base, the component, and what the component stands on."""
    names = [component.name] if component.name not in NEEDS_JUDGE else ["vllm-judge", component.name]
    shutil.copytree(K8S, tmp_path / "k8s")
    trial = tmp_path / "k8s" / "overlays" / "trial"
    trial.mkdir()
    body = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": NAMESPACE,
        "resources": ["../../base"],
        "components": [f"../../components/{name}" for name in names],
    }
    (trial / "kustomization.yaml").write_text(json.dumps(body))
    return kustomized(trial)


def tried(cluster: Cluster, body: Object) -> None:
    """Server-side, strictly, and for what makes pods the pod too: Pod Security refuses pods, not what makes them."""
    body["metadata"]["namespace"] = NAMESPACE
    path = PATHS[body["kind"]].format(ns=NAMESPACE)
    query = [("dryRun", "All"), ("fieldValidation", "Strict")]
    cluster._patiently("POST", path, body=body, query=query)
    if template := _template(body):
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "trial", **_kept(template)},
            "spec": template["spec"],
        }
        if (account := pod["spec"].get("serviceAccountName")) is not None:
            pod["spec"] = {**pod["spec"], "serviceAccountName": "default"}
            assert account
        cluster._patiently("POST", PATHS["Pod"].format(ns=NAMESPACE), body=pod, query=query)


def _kept(template: Object) -> dict[str, Any]:
    return {"labels": template.get("metadata", {}).get("labels", {})}


def _template(body: Object) -> Object | None:
    spec = body.get("spec") or {}
    if body["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    found: Object | None = (
        spec.get("template") if body["kind"] in ("Job", "CronJob", "StatefulSet", "Deployment") else None
    )
    if found and body["kind"] == "StatefulSet":
        # its claims become volumes
        claims = [{"name": c["metadata"]["name"], "emptyDir": {}} for c in body["spec"].get("volumeClaimTemplates", ())]
        found = {**found, "spec": {**found["spec"], "volumes": [*found["spec"]["volumes"], *claims]}}
    return found


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_an_overlay_is_taken_by_a_server_that_enforces_restricted(restricted: Cluster, overlay: Path) -> None:
    bodies = kustomized(overlay)
    assert len(bodies) > 8
    for body in bodies:
        if body["kind"] != "Namespace":
            tried(restricted, body)


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda path: path.name)
def test_a_component_is_taken_by_a_server_that_enforces_restricted(
    restricted: Cluster, tmp_path: Path, component: Path
) -> None:
    for body in with_component(tmp_path, component):
        if body["kind"] != "Namespace":
            tried(restricted, body)


def test_a_pod_that_runs_as_root_is_refused(restricted: Cluster) -> None:
    """So the others were not taken for want of a check."""
    (job,) = [b for b in kustomized(K8S / "base") if b["kind"] == "Job" and b["metadata"]["name"].endswith("workers")]
    job["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] = False
    with pytest.raises(ClusterError, match="violates PodSecurity"):
        tried(restricted, job)
