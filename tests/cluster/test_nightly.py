"""A nightly: from the CronJob's trigger to the verdict by itself, and a driver that may be killed at any point."""

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from queue_eval.core.errors import EXIT_INCONCLUSIVE, QueueEvalError
from queue_eval.kubernetes.cluster import Object
from queue_eval.kubernetes.names import COMMIT_ANNOTATION
from queue_eval.kubernetes.status import pod_end
from testkit.measured import ROOT
from testkit.provider.wire import always
from tests.cluster.image import IMAGE
from tests.cluster.local_cluster import AUDIT, KUBECONFIG
from tests.cluster.objects import CORE
from tests.cluster.place import NAMESPACE
from tests.cluster.stage import KILLED, Stage, that_takes_409_for_a_failure

NEVER = "0 0 1 1 *"  # during a test, that is: the Job is started by hand
CRONJOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/cronjobs"


@pytest.fixture
def nightly(stage: Stage) -> Iterator[Stage]:
    """k8s/overlays/nightly/cronjob.yaml as it stands, but for what this cluster's network asks for. It triggers once."""
    name = stage.run_id = f"n{stage.run_id[-5:]}"
    yield stage
    for path in (f"{CRONJOBS}/{name}", f"{CORE}/configmaps/{name}-input"):
        stage.cluster._patiently("DELETE", path, body={"propagationPolicy": "Foreground"})


def scheduled(
    stage: Stage, cases: int, schedule: str, *, input_name: str | None = None, deadline_s: int | None = None
) -> None:
    eval_yaml = stage.write(cases, kubernetes={"dataset": "/input/night.jsonl"})
    files = {"eval.yaml": eval_yaml.read_text(), "night.jsonl": (stage.folder / "cases.jsonl").read_text()}
    name = f"{stage.run_id}-input"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": files}
    stage.cluster._patiently("POST", f"{CORE}/configmaps", body=body)
    cronjob = yaml.safe_load((ROOT / "k8s/overlays/nightly/cronjob.yaml").read_text())
    cronjob["metadata"]["name"] = stage.run_id
    cronjob["spec"]["schedule"] = schedule
    job = cronjob["spec"]["jobTemplate"]["spec"]
    job["template"]["metadata"]["annotations"] = {COMMIT_ANNOTATION: "abc123"}
    job["activeDeadlineSeconds"] = deadline_s or job["activeDeadlineSeconds"]
    pod = job["template"]["spec"]
    container: dict[str, Any] = pod["containers"][0]
    container |= {
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "envFrom": [{"secretRef": {"name": name}} for name in stage.secrets],
    }
    container["resources"]["requests"] = {"cpu": "10m", "memory": "100Mi"}
    pod["volumes"] = [
        {**volume, "configMap": {"name": input_name or name}} if volume["name"] == "input" else volume
        for volume in pod["volumes"]
    ]
    stage.cluster._patiently("POST", CRONJOBS, body=cronjob)


def triggered(stage: Stage) -> list[Object]:
    owner = stage.run_id
    jobs, _ = stage.cluster.list("jobs")
    return [j for j in jobs if owner in [o["name"] for o in j["metadata"].get("ownerReferences") or ()]]


def started_by_hand(stage: Stage) -> str:
    """As `kubectl create job --from=cronjob/…` does; the Job's name, which is the run's id."""
    cronjob = stage.cluster._patiently("GET", f"{CRONJOBS}/{stage.run_id}")
    template = cronjob["spec"]["jobTemplate"]
    name = f"{stage.run_id}-by-hand"
    meta = {"name": name, "labels": template["metadata"]["labels"]}
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": stage.run_id, "uid": cronjob["metadata"]["uid"]}
    body = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**meta, "ownerReferences": [owner]},
        "spec": template["spec"],
    }
    stage.cluster.create("jobs", body)
    return name


@pytest.mark.core
def test_a_nightly_runs_from_its_trigger_to_its_verdict_by_itself(nightly: Stage) -> None:
    scheduled(nightly, 20, "* * * * *")
    nightly.until(lambda: triggered(nightly), within_s=90)
    (job,) = triggered(nightly)
    nightly.cluster._patiently(
        "PATCH", f"{CRONJOBS}/{nightly.run_id}", body={"spec": {"suspend": True}}
    )  # once is enough
    nightly.run_id = job["metadata"]["name"]
    nightly.until(nightly.jobs, within_s=60)
    assert nightly.verdict() == 0
    nightly.audited(20)
    status = nightly.status()
    assert (status["state"], status["report"]["verdict"]) == ("FINALIZED", "pass")
    assert {j.name for j in nightly.jobs()} == {f"qe-{nightly.run_id}-workers"}
    workers = nightly.cluster.get("jobs", f"qe-{nightly.run_id}-workers")
    assert workers
    assert workers["metadata"]["annotations"][COMMIT_ANNOTATION] == "abc123"
    assert json.loads((nightly.store / "report.json").read_text())["commit_sha"] == "abc123"
    # all that k8s/base/platform/driver.yaml allows was asked for, and nothing more
    assert "forbidden" not in nightly.k8s("logs", nightly.run_id, "--role", "driver").out
    if nightly.kubeconfig == str(KUBECONFIG):
        assert _asked_for() == _allowed()
    assert nightly.k8s("delete", nightly.run_id).code == 0
    nightly.until(lambda: not nightly.jobs())


def test_a_driver_that_is_killed_at_each_of_its_steps_goes_on_with_the_same_run(nightly: Stage) -> None:
    scheduled(nightly, 40, NEVER)
    nightly.provider.latency = always(5.0)  # the run outlasts the deaths of its driver
    nightly.run_id = started_by_hand(nightly)
    for step in ("produced", "workers", "status"):
        killed_at(nightly, step)
    nightly.provider.latency = always(0.0)
    nightly.until(lambda: drivers(nightly), within_s=200)
    assert nightly.verdict() == 0
    accounting = nightly.audited(40)
    assert (accounting["unrecorded_executions"], accounting["executions"]) == (0, 40)
    assert [job.number for job in nightly.jobs()] == [1]
    assert json.loads((nightly.store / "report.json").read_text())["verdict"] == "pass"


def test_a_driver_that_takes_409_for_a_failure_cannot_come_back(nightly: Stage) -> None:
    """A seeded defect: what the test before this one is for."""
    nightly.provider.latency = always(5.0)
    with that_takes_409_for_a_failure(nightly):
        scheduled(nightly, 12, NEVER)
        nightly.run_id = started_by_hand(nightly)
        killed_at(nightly, "workers")
        nightly.until(lambda: _ended_with(nightly, "already exists"), within_s=200)


def test_a_driver_that_is_killed_while_it_produces_when_all_is_scored_and_after_its_report_goes_on(
    nightly: Stage,
) -> None:
    scheduled(nightly, 40, NEVER)
    nightly.provider.latency = always(5.0)  # the run outlasts the time until the driver is back
    nightly.run_id = started_by_hand(nightly)
    killed_at(nightly, "")
    nightly.until(lambda: drivers(nightly) and nightly.stored, within_s=200)
    (pod,) = drivers(nightly)
    nightly.signal(pod["metadata"]["name"], signal.SIGSTOP)  # it has seen no end when all is scored
    nightly.provider.latency = always(0.0)
    nightly.until(lambda: nightly.stored == 40, within_s=200)
    nightly.delete_pod(pod["metadata"]["name"], at_once=True)
    nightly.until(lambda: drivers(nightly), within_s=200)
    (pod,) = drivers(nightly)
    (process,) = nightly.processes(pod["metadata"]["name"])
    report = nightly.store / "report.json"
    nightly.until(report.exists, within_s=60)
    os.kill(process, signal.SIGKILL)
    reported = report.read_bytes()
    nightly.until(lambda: KILLED in [end.code for end in nightly.ends("driver")])
    assert nightly.verdict() == 0
    assert report.read_bytes() == reported
    nightly.audited(40, lost_calls=1)  # the first one died while it asked whether the judge is there


def test_the_driver_itself_replaces_a_job_of_workers_that_has_used_up_its_retries(nightly: Stage) -> None:
    scheduled(nightly, 30, NEVER)
    nightly.provider.latency = always(0.5)
    nightly.run_id = started_by_hand(nightly)
    nightly.until(lambda: nightly.stored >= 2)
    nightly.patch_workers(backoffLimit=0)
    nightly.signal(nightly.running()[0], signal.SIGKILL)
    nightly.until(lambda: [job.number for job in nightly.jobs()] == [1, 2])
    nightly.provider.latency = always(0.0)
    assert nightly.verdict() == 0
    nightly.audited(30)
    assert nightly.job().ended == "Failed"


def test_a_driver_whose_time_is_nearly_over_reports_what_there_is(nightly: Stage) -> None:
    nightly.provider.latency = always(2.0)
    scheduled(nightly, 200, NEVER, deadline_s=70)  # a tenth of which is the report's
    nightly.run_id = started_by_hand(nightly)
    assert nightly.verdict() == EXIT_INCONCLUSIVE
    assert nightly.status()["state"] == "SEALED"
    accounting = json.loads((nightly.store / "report.json").read_text())["accounting"]
    assert 0 < accounting["scored"] == 200 - accounting["missing"]


def _asked_for() -> set[tuple[str, str]]:
    """By drivers: resource and verb."""
    asked = map(json.loads, AUDIT.read_text().splitlines())
    return {
        (a["objectRef"]["resource"], a["verb"]) for a in asked if a["user"]["username"].endswith(":queue-eval-driver")
    }


def _allowed() -> set[tuple[str, str]]:
    documents = yaml.safe_load_all((ROOT / "k8s/base/platform/driver.yaml").read_text())
    (role,) = [body for body in documents if body["kind"] == "Role"]
    return {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}


def _ended_with(stage: Stage, words: str) -> bool:
    ends = [end for pod in drivers(stage) if (end := pod_end(pod))]
    return any(end.code == QueueEvalError.exit_code and words in end.message for end in ends)


def killed_at(stage: Stage, step: str) -> None:
    """The driver's pod goes without a word, as soon as it has logged that it is there; "": as soon as it runs."""
    known: list[str] = []

    def there() -> bool:
        known[:] = [p["metadata"]["name"] for p in drivers(stage)]
        return any(not step or f'"event": "{step}"' in stage.cluster.log(name) for name in known)

    # the controller puts a pod off that follows lost ones: 10 s, 20 s, 40 s
    stage.until(there, within_s=150)
    for name in known:
        stage.delete_pod(name, at_once=True)


def drivers(stage: Stage) -> list[Object]:
    pods, _ = stage.cluster.list("pods", labels=f"batch.kubernetes.io/job-name={stage.run_id}")
    return [p for p in pods if "deletionTimestamp" not in p["metadata"] and p["status"]["phase"] == "Running"]


def test_a_nightly_that_cannot_begin_is_known_to_every_verb(nightly: Stage) -> None:
    scheduled(nightly, 2, NEVER, input_name="never-made")
    nightly.run_id = started_by_hand(nightly)
    cause = 'configmap "never-made" not found'
    nightly.until(lambda: cause in trouble(nightly), within_s=60)
    waited = nightly.k8s("wait", nightly.run_id, "--blocked-timeout", "1")
    assert (waited.code, cause in waited.err) == (69, True)
    deleted = nightly.k8s("delete", nightly.run_id)
    assert (deleted.code, deleted.out) == (0, f"deleted Job {nightly.run_id}\n")


def test_a_nightly_whose_file_is_wrong_is_named_by_status(nightly: Stage) -> None:
    scheduled(nightly, 2, NEVER)
    broken = {"data": {"eval.yaml": "dataset: cases.jsonl\nmetrik: []\n"}}
    nightly.cluster.patch("configmaps", f"{nightly.run_id}-input", broken)
    nightly.run_id = started_by_hand(nightly)
    nightly.until(lambda: "did you mean metrics" in trouble(nightly), within_s=60)
    assert "exit code 78" in trouble(nightly)
    assert "did you mean metrics" in nightly.k8s("logs", nightly.run_id, "--role", "driver").out
    waited = nightly.k8s("wait", nightly.run_id)
    assert (waited.code, "did you mean metrics" in waited.err) == (78, True)


def trouble(stage: Stage) -> str:
    return "".join(
        line for line in stage.k8s("status", stage.run_id).out.splitlines(keepends=True) if "TROUBLE" in line
    )
