"""What a run's objects hold, what is read from them, and what is decided: without a cluster."""

import base64
import gzip
import itertools
import json
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from queue_eval.cli import enqueue
from queue_eval.cli.inputs import run_id_or_new
from queue_eval.cli.k8s.format import screen
from queue_eval.cli.k8s.planned import planned
from queue_eval.config.kubernetes_settings import KubernetesSettings
from queue_eval.core.errors import (
    AccessError,
    ConfigError,
    DataError,
    JudgeRefusedError,
    NoInputError,
    QueueEvalError,
    RunConflictError,
    StoreError,
    UnavailableError,
)
from queue_eval.core.run import RunState
from queue_eval.core.status_line import StatusLine
from queue_eval.kubernetes import actions, jobs
from queue_eval.kubernetes.cluster import Cluster
from queue_eval.kubernetes.diagnostics import stalled, troubles, waits
from queue_eval.kubernetes.driver import REPORTS_WITHIN_S, time_left_s
from queue_eval.kubernetes.errors import BusyError
from queue_eval.kubernetes.names import COMMIT_ANNOTATION, JOB_NAME_LABEL, RUN_LABEL, workers_name, workers_number
from queue_eval.kubernetes.overview import look
from queue_eval.kubernetes.plan import RunPlan
from queue_eval.kubernetes.queries import warnings_about
from queue_eval.kubernetes.reconcile import Another, AnotherFinalizer, GiveUp, Rest, decide
from queue_eval.kubernetes.status import JobSeen, is_running
from queue_eval.kubernetes.waiting import RunWait
from queue_eval.kubernetes.watching import Seen
from testkit.measured import ROOT

BASE = ROOT / "k8s" / "base"
INCONCLUSIVE = "Container queue-eval for pod ns/p failed with exit code 2 matching FailJob rule at index 0"


@pytest.fixture
def plan() -> RunPlan:
    return planned(str(BASE / "eval.yaml"), "example", None, commit="")


def test_the_manifests_are_what_the_client_would_create(plan: RunPlan) -> None:
    """`make manifests` writes them anew."""
    committed = list(yaml.safe_load_all((BASE / "run.yaml").read_text()))
    created = [jobs.config_map(plan), jobs.finalizer(plan), jobs.producer(plan), jobs.workers(plan)]
    assert [unpacked(body) for body in committed] == [unpacked(body) for body in created]


def unpacked(body: dict[str, Any]) -> dict[str, Any]:
    """Without gzip, whose bytes are another version of Python's own."""
    packed = {name: base64.b64decode(data) for name, data in body.get("binaryData", {}).items()}
    files = {name: gzip.decompress(data) if name.endswith(".gz") else data for name, data in packed.items()}
    return {**body, "binaryData": files}


def test_no_exit_code_is_named_twice(plan: RunPlan) -> None:
    """The API server would refuse the Job."""
    for job in (jobs.producer(plan), jobs.finalizer(plan), jobs.workers(plan), jobs.abort_like(jobs.workers(plan))):
        for rule in job["spec"]["podFailurePolicy"]["rules"]:
            codes = rule.get("onExitCodes", {}).get("values", [])
            assert len(codes) == len(set(codes)), job["metadata"]["name"]


def test_workers_may_come_and_go(plan: RunPlan) -> None:
    spec = jobs.workers(plan, parallelism=7)["spec"]
    assert "completions" not in spec
    assert (spec["parallelism"], spec["backoffLimit"], spec["podReplacementPolicy"]) == (7, 28, "Failed")
    rules = [(rule["action"], rule.get("onExitCodes", {}).get("values")) for rule in spec["podFailurePolicy"]["rules"]]
    assert rules == [("Ignore", None), ("Ignore", [75]), ("FailJob", [65, 78])]
    pod = spec["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > plan.workers_grace_s
    assert pod["automountServiceAccountToken"] is False


def test_a_run_whose_deadline_passes_still_gets_its_report(plan: RunPlan) -> None:
    workers, finalizer = jobs.workers(plan)["spec"], jobs.finalizer(plan)["spec"]
    arguments = finalizer["template"]["spec"]["containers"][0]["args"]
    timeout_s = int(arguments[arguments.index("--timeout") + 1])
    assert workers["activeDeadlineSeconds"] < timeout_s < finalizer["activeDeadlineSeconds"]


def test_a_long_judge_call_is_no_sign_of_death(plan: RunPlan, tmp_path: Path) -> None:
    assert plan.liveness_s == 300
    path = tmp_path / "eval.yaml"
    path.write_text((BASE / "eval.yaml").read_text() + "\nretry: {call_timeout_s: 600}\n")
    (tmp_path / "cases.jsonl").write_bytes((BASE / "cases.jsonl").read_bytes())
    patient = planned(str(path), "example", None)
    probe = jobs.workers(patient)["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]
    assert "-lt 660" in probe["exec"]["command"][2]


def test_nothing_secret_is_in_what_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", "sk-canary-0123456789abcdef")
    monkeypatch.setenv("QUEUE_EVAL_REDIS_PASSWORD", "pw-canary-0123456789abcdef")
    plan = planned(str(BASE / "eval.yaml"), "example", None)
    rendered = repr([jobs.config_map(plan), jobs.finalizer(plan), jobs.producer(plan), jobs.workers(plan)])
    assert "canary" not in rendered


def test_the_commit_and_the_run_are_on_every_object() -> None:
    plan = planned(str(BASE / "eval.yaml"), "example", None, commit="abc123")
    for body in (jobs.config_map(plan), jobs.finalizer(plan), jobs.producer(plan), jobs.workers(plan)):
        assert body["metadata"]["labels"][RUN_LABEL] == "example"
        assert body["metadata"]["annotations"][COMMIT_ANNOTATION] == "abc123"


def test_workers_have_a_redis_user_and_secrets_of_their_own(plan: RunPlan) -> None:
    def seen(body: dict[str, Any]) -> tuple[str, list[str]]:
        container = body["spec"]["template"]["spec"]["containers"][0]
        return container["env"][0]["value"], [source["secretRef"]["name"] for source in container["envFrom"]]

    assert seen(jobs.workers(plan)) == ("redis://qe-worker@redis:6379/0", ["judge-credentials", "redis-worker"])
    assert seen(jobs.producer(plan)) == ("redis://qe-producer@redis:6379/0", ["judge-credentials", "redis-producer"])
    assert seen(jobs.finalizer(plan)) == ("redis://qe-producer@redis:6379/0", ["redis-producer"])


def test_workers_alone_wait_in_kueues_queue(plan: RunPlan) -> None:
    """Its webhook suspends a Job with this label until the queue has room; a producer or finalizer that waited too would be a deadlock."""
    queued = replace(plan, settings=plan.settings.model_copy(update={"queue": "evaluations"}))
    label = "kueue.x-k8s.io/queue-name"
    assert jobs.workers(queued)["metadata"]["labels"][label] == "evaluations"
    for body in (jobs.workers(plan), jobs.producer(queued), jobs.finalizer(queued)):
        assert label not in body["metadata"]["labels"]
    # further workers wait there as well
    assert jobs.further(jobs.workers(queued), 2, 3)["metadata"]["labels"][label] == "evaluations"


def test_a_case_file_that_no_config_map_holds_is_reported_with_the_remedy(tmp_path: Path) -> None:
    import random

    chance = random.Random(1)
    rows = "".join(
        f'{{"input": "{chance.randbytes(600).hex()}", "actual_output": "a", "retrieval_context": ["c"]}}\n'
        for _ in range(2000)
    )
    (tmp_path / "cases.jsonl").write_text(rows)
    with pytest.raises(ConfigError, match=r"more than a ConfigMap carries.*kubernetes.dataset"):
        planned(str(BASE / "eval.yaml"), "example", str(tmp_path / "cases.jsonl"))


@pytest.mark.parametrize(
    ("name", "text"), [("bad.jsonl", "not json"), ("none.jsonl", ""), ("torn.jsonl.gz", "no gzip")]
)
def test_cases_that_cannot_be_read_reach_no_cluster(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=name):
        planned(str(BASE / "eval.yaml"), "example", str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("my-1.jsonl", "my-1.jsonl.gz"),
        ("мои cases.v2.jsonl", "cases.jsonl.gz"),
        ("a b.jsonl.gz", "cases.jsonl.gz"),
        ("nightly v1.2 final.jsonl", "cases.jsonl.gz"),
        ("..c.jsonl", "cases.jsonl.gz"),
    ],
)
def test_a_case_file_travels_under_a_name_that_a_config_map_takes(tmp_path: Path, name: str, key: str) -> None:
    data = (BASE / "cases.jsonl").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    plan = planned(str(BASE / "eval.yaml"), "example", str(tmp_path / name))
    assert set(jobs.config_map(plan)["binaryData"]) == {"eval.yaml", key}
    assert plan.dataset.endswith(f"/{key}")


@pytest.mark.parametrize(
    ("producers", "workers", "words"), [("", "w", "empty"), ("p", "", "empty"), ("p|", "w", "letters, digits")]
)
def test_redis_does_not_start_with_a_password_that_lets_all_in(producers: str, workers: str, words: str) -> None:
    config, *_ = yaml.safe_load_all((BASE / "platform" / "redis.yaml").read_text())
    done = subprocess.run(
        ["sh", "-c", config["data"]["start.sh"]],
        env={"PRODUCER_PASSWORD": producers, "WORKER_PASSWORD": workers},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, words in done.stderr) == (78, True), done.stderr


def test_an_empty_run_id_is_no_new_run() -> None:
    """Of a variable that a pipeline has not set: each submit would be another run."""
    with pytest.raises(QueueEvalError):
        run_id_or_new("")
    assert run_id_or_new(None) != ""


def test_a_further_job_of_workers_is_as_the_last_one_was(plan: RunPlan) -> None:
    standing = jobs.owned(
        jobs.workers(plan, parallelism=3),
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "qe-example", "uid": "u"}},
    )
    standing["spec"] |= {"selector": {"matchLabels": {}}, "suspend": False, "completionMode": "NonIndexed"}
    body = jobs.further(standing, 2, 5)
    assert body["metadata"]["name"] == "qe-example-workers-2"
    assert body["metadata"]["ownerReferences"] == standing["metadata"]["ownerReferences"]
    assert body["spec"]["parallelism"] == 5
    assert not {"selector", "suspend", "completionMode"} & set(body["spec"])
    assert body["spec"]["template"]["spec"] == standing["spec"]["template"]["spec"]
    assert workers_number(body["metadata"]["name"]) == 2
    assert workers_name("example", 1) == "qe-example-workers"


def job(number: int = 1, **more: Any) -> JobSeen:
    facts = {"parallelism": 2, "suspended": False, "indexed": False, "backoff_limit": 20, "active": 0, "succeeded": 0, "failed": 0, "ended": None, "ended_at_s": 0.0, "reason": "", "message": ""}  # fmt: skip
    return JobSeen(name=workers_name("r", number), uid="", role="worker", number=number, **{**facts, **more})


DRAINED, OPEN = RunState.DRAINED, RunState.SEALED


@pytest.mark.parametrize(
    ("seen", "state", "expected"),
    [
        ([job(ended="Complete")], DRAINED, Rest),
        ([job(ended="Failed", reason="BackoffLimitExceeded")], DRAINED, Rest),
        ([job(ended="Complete")], OPEN, Another),
        ([job(ended="Failed", reason="BackoffLimitExceeded")], OPEN, Another),
        ([job(ended="Failed", reason="PodFailurePolicy")], OPEN, GiveUp),
        ([job(ended="Failed", reason="DeadlineExceeded")], OPEN, GiveUp),
        ([job(active=2)], OPEN, Rest),
        ([job(ended="Complete"), job(2, active=1)], OPEN, Rest),
        ([job(ended="Complete")], None, Rest),
        ([job(n, ended="Complete") for n in range(1, 6)], OPEN, GiveUp),
        ([], OPEN, Rest),
    ],
)
def test_all_four_of_complete_or_failed_drained_or_not(
    seen: list[JobSeen], state: RunState | None, expected: type
) -> None:
    decision = decide(seen, state)
    assert isinstance(decision, expected)
    if isinstance(decision, Another):
        assert decision.number == len(seen) + 1


@pytest.mark.parametrize(
    ("seen", "state", "said_at_s", "shown"),
    [
        ([job(ended="Complete", ended_at_s=100)], "SEALED", 200, True),
        ([job(ended="Complete", ended_at_s=100)], "SEALED", 104, False),  # what was logged may be older than the end
        ([job(ended="Complete", ended_at_s=100)], "DRAINED", 200, False),
        ([job(ended="Complete", ended_at_s=100), job(2, active=1)], "SEALED", 200, False),
        (
            [job(ended="Failed", reason="BackoffLimitExceeded", ended_at_s=100)],
            "SEALED",
            200,
            False,
        ),  # reported as such
        ([], "SEALED", 200, False),
    ],
)
def test_workers_that_are_complete_long_before_their_run_are_reported(
    seen: list[JobSeen], state: str, said_at_s: float, shown: bool
) -> None:
    trouble = stalled(seen, standing(state, now_s=said_at_s))
    assert (trouble is not None) == shown
    assert not trouble or "k8s reconcile" in trouble.remedy


def pod(name: str, role: str = "worker", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"queue-eval.dev/role": role}}, "status": status}


def ended(code: int, **more: Any) -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, "reason": "Error", **more}}
    return {"containerStatuses": [{"name": "queue-eval", "image": "i", "state": state}]}


def test_what_is_no_trouble_is_not_reported() -> None:
    pods = [
        pod("drained", **ended(0)),
        pod("released", **ended(75)),
        pod("evicted", conditions=[{"type": "DisruptionTarget", "status": "True"}], **ended(137)),
        pod("verdict", "finalizer", **ended(1)),
    ]
    assert troubles([], pods) == []


def test_a_pod_whose_node_does_not_answer_is_not_at_work_whatever_it_reported_last() -> None:
    running = [{"name": "queue-eval", "image": "i", "state": {"running": {"startedAt": "then"}}}]

    def on_node(ready: str, containers_ready: str, **spec: Any) -> dict[str, Any]:
        states = {"Ready": ready, "ContainersReady": containers_ready}
        conditions = [{"type": kind, "status": status} for kind, status in states.items()]
        return {**pod("w", containerStatuses=running, conditions=conditions), "spec": {"nodeName": "n7", **spec}}

    lost = on_node("False", "True")
    (trouble,) = troubles([], [lost])
    assert (is_running(lost), "its node n7 does not answer" in str(trouble), trouble.blocks) == (False, True, True)
    gated = {"readinessGates": [{"conditionType": "example.com/ready"}]}
    for pod_ in (on_node("True", "True"), on_node("False", "False"), on_node("False", "True", **gated)):
        assert (is_running(pod_), troubles([], [pod_])) == (True, [])


def test_the_same_of_many_pods_is_reported_once_with_its_last_words() -> None:
    printed = (
        '{"event": "held", "level": "error"}\n'
        '{"event": "error", "message": "queue-eval: redis at redis://redis:6379/0 refuses us"}\n'
        '{"event": "exit"}\n'
    )
    found = troubles([], [pod(f"w{n}", **ended(78, message=printed)) for n in range(50)])
    assert [str(trouble) for trouble in found] == [
        "pod w0: exit code 78: queue-eval: redis at redis://redis:6379/0 refuses us; its log has more"
    ]


def test_the_end_of_a_pod_whose_work_is_done_is_no_trouble(plan: RunPlan) -> None:
    producer = {**jobs.producer(plan), "status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    first = pod("first", "producer", **ended(69))
    finalizer = jobs.finalizer(plan)
    assert troubles([finalizer, jobs.workers(plan), producer], [first]) == []
    assert troubles([finalizer, jobs.producer(plan)], [first])
    workers, worker = failed(jobs.workers(plan), "BackoffLimitExceeded"), pod("w", **ended(65))
    for state in ("DRAINED", "FINALIZED", "ABORTED"):
        assert troubles([finalizer, workers], [worker], status=standing(state)) == []
    sealed = standing("SEALED")
    assert len(troubles([finalizer, workers], [worker], status=sealed)) == 2
    # it failed after it had enqueued everything
    late = failed(jobs.producer(plan), "DeadlineExceeded")
    assert troubles([finalizer, jobs.workers(plan), late], [first], status=sealed) == []
    # passed or failed: that counts all cases
    for code, is_trouble in ((1, False), (2, True)):
        verdict = failed(finalizer, "PodFailurePolicy", INCONCLUSIVE.replace("code 2", f"code {code}"))
        assert bool(troubles([verdict, workers], [worker])) == is_trouble
    # further workers go on in their place
    assert troubles([finalizer, workers, jobs.further(jobs.workers(plan), 2, 3)], []) == []


def test_a_run_without_a_follower_is_reported_with_what_brings_a_finalizer(plan: RunPlan) -> None:
    cluster = Standing()
    actions.submit(cluster, plan, workers=2)
    assert troubles(cluster.jobs.values(), []) == []
    cluster.delete("jobs", "qe-example-finalizer")
    (trouble,) = troubles(cluster.jobs.values(), [])
    assert ("the finalizer Job was deleted" in str(trouble), trouble.blocks) == (True, True)
    assert actions.submit(cluster, plan, workers=2)["qe-example-finalizer"]
    assert troubles(cluster.jobs.values(), []) == []
    shards = jobs.workers(plan)
    shards["spec"]["completionMode"] = "Indexed"
    assert troubles([shards], []) == []  # finalized by hand


def test_a_run_whose_workers_are_deleted_is_reported_with_what_brings_them_back(plan: RunPlan) -> None:
    cluster = Standing()
    actions.submit(cluster, plan, workers=2)
    end = {"conditions": [{"type": "Complete", "status": "True"}]}
    cluster.jobs["qe-example-producer"] = {**jobs.producer(plan), "status": end}
    cluster.delete("jobs", "qe-example-workers")
    (trouble,) = troubles(cluster.jobs.values(), [], status=standing("SEALED"))
    assert ("Job was deleted; no case will be scored" in str(trouble), trouble.blocks) == (True, True)
    assert troubles(cluster.jobs.values(), [], status=standing("DRAINED")) == []
    assert actions.submit(cluster, plan, workers=2)["qe-example-workers"]
    assert troubles(cluster.jobs.values(), [], status=standing("SEALED")) == []


def test_workers_whose_time_is_over_keep_none_from_the_report_of_what_there_is(plan: RunPlan) -> None:
    """The finalizer's time began when its pod did, which may be minutes later."""
    workers = failed(jobs.workers(plan), "DeadlineExceeded")
    (trouble,) = troubles([jobs.finalizer(plan), workers], [], status=standing("SEALED"))
    assert ("k8s scale" in str(trouble), trouble.blocks) == (True, False)
    ended = failed(jobs.finalizer(plan), "BackoffLimitExceeded")
    assert all(trouble.blocks for trouble in troubles([ended, workers], []))


def test_an_image_of_an_init_container_that_cannot_be_pulled_is_reported() -> None:
    waiting = {"name": "mesh", "image": "mesh:1", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    (trouble,) = troubles([], [pod("w", phase="Pending", initContainerStatuses=[waiting])])
    assert "the image mesh:1 cannot be pulled" in str(trouble)


def test_workers_that_are_not_wanted_are_reported_and_hold_nothing_up(plan: RunPlan) -> None:
    none = jobs.workers(plan, parallelism=0)
    (trouble,) = troubles([jobs.finalizer(plan), none], [])
    assert ("k8s scale RUN N" in str(trouble), trouble.blocks) == (True, False)
    assert troubles([jobs.finalizer(plan), none, jobs.further(jobs.workers(plan), 2, 3)], []) == []
    assert troubles([jobs.finalizer(plan), none], [], status=standing("DRAINED")) == []


def test_static_shards_are_reported_by_hand_and_never_grow(plan: RunPlan) -> None:
    shards = jobs.workers(plan)
    shards["spec"]["completionMode"] = "Indexed"
    assert troubles([shards], []) == []
    ended_ = {**shards, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    (trouble,) = troubles([ended_], [])
    assert ("queue-eval finalize RUN" in str(trouble), trouble.blocks) == (True, True)
    with pytest.raises(RunConflictError, match="static shards"):
        actions.scale(Standing(shards), "example", 9)
    with pytest.raises(RunConflictError, match="k8s delete example"):
        actions.cancel(Standing(shards), "example")


def test_a_finalizer_that_cannot_be_made_anew_stays(plan: RunPlan) -> None:
    class Full(Standing):
        def check(self, kind: str, body: dict[str, Any]) -> None:
            raise ConfigError("exceeded quota")

    last = failed(jobs.finalizer(plan), "PodFailurePolicy", INCONCLUSIVE)
    cluster = Full(failed(jobs.workers(plan), "DeadlineExceeded"), last)
    with pytest.raises(ConfigError, match="exceeded quota"):
        actions.scale(cluster, "example", 3)
    assert cluster.jobs["qe-example-finalizer"] is last


def test_a_finalizer_of_the_longest_name_is_tried_under_one_that_a_job_may_have() -> None:
    class Trying(Standing):
        tried: str = ""

        def check(self, kind: str, body: dict[str, Any]) -> None:
            self.tried = body["metadata"]["name"]

        def delete(self, kind: str, name: str, *, uid: str = "") -> bool:
            return bool(self.jobs.pop(name))

    run_id = "r" * 48
    long = planned(str(BASE / "eval.yaml"), run_id, None, commit="")
    last = failed(jobs.finalizer(long), "PodFailurePolicy", INCONCLUSIVE)
    cluster = Trying(failed(jobs.workers(long), "DeadlineExceeded"), last)
    actions.scale(cluster, run_id, 3)
    assert 0 < len(cluster.tried) <= 63
    assert cluster.tried not in cluster.jobs


def test_a_driver_that_is_called_like_workers_hides_none_of_them(plan: RunPlan) -> None:
    driver = {"metadata": {"name": "night-workers-29927140", "labels": {"queue-eval.dev/role": "driver"}}, "spec": {}}
    (trouble,) = troubles([driver, failed(jobs.workers(plan), "BackoffLimitExceeded")], [])
    assert "BackoffLimitExceeded" in str(trouble)


def test_a_drivers_replacement_that_cannot_start_is_found_by_its_jobs_name() -> None:
    """It labels itself with the run when it runs, and its Job has been labelled by the one before."""
    waiting = {"name": "queue-eval", "image": "i:1", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    cluster = not_begun({}, phase="Pending", containerStatuses=[waiting])
    cluster.jobs["night-1"]["metadata"]["labels"] |= {RUN_LABEL: "night-1"}
    assert "the image i:1 cannot be pulled" in str(look(cluster, "night-1").troubles)
    shown: list[str] = []
    moments = itertools.count(0, 5)
    wait = RunWait(cluster, "night-1", notice=shown.append, show=print, blocked_s=1, sleep=time.sleep, now=lambda: next(moments))  # fmt: skip
    with pytest.raises(UnavailableError, match="cannot be pulled"):
        wait.verdict()
    assert "cannot be pulled" in shown[0]


@pytest.mark.parametrize(
    ("message", "state", "words"),
    [
        (None, RunState.FINALIZED, "verdict pass"),
        (INCONCLUSIVE.replace("code 2", "code 1"), RunState.FINALIZED, "verdict fail"),
        (INCONCLUSIVE, None, "its state is unknown"),
    ],
)
def test_a_verdict_whose_pod_is_gone_stands_in_its_job(
    plan: RunPlan, message: str | None, state: RunState | None, words: str
) -> None:
    passed = {**jobs.finalizer(plan), "status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    cluster = Standing(jobs.workers(plan), failed(passed, "PodFailurePolicy", message) if message else passed)
    view = look(cluster, "example")
    assert view.state == state
    assert words in "\n".join(screen(view))
    assert "not enqueued yet" not in screen(view)[0]


def test_what_is_enqueued_is_not_reported_as_missing(plan: RunPlan) -> None:
    produced = {**jobs.producer(plan), "status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    for producer, words in ((jobs.producer(plan), "not enqueued yet"), (produced, "its state is unknown")):
        assert words in screen(look(Standing(producer, jobs.workers(plan), jobs.finalizer(plan)), "example"))[0]


def test_another_redis_is_the_producers_too() -> None:
    """Of its eval.yaml's redis.url and the environment the file goes first; an option goes before both."""
    component = yaml.safe_load((ROOT / "k8s/components/external-redis/kustomization.yaml").read_text())
    patched = [
        p for p in component["patches"] if p.get("target", {}).get("labelSelector", "").endswith("role=producer")
    ]
    values = [operation["value"] for patch in patched for operation in yaml.safe_load(patch["patch"])]
    assert values == ["--redis", "rediss://qe-producer@REDIS-HOST:6379/0"]
    run = list(yaml.safe_load_all((BASE / "run.yaml").read_text()))
    (producer,) = [body for body in run if body["metadata"]["name"].endswith("-producer")]
    arguments = [*producer["spec"]["template"]["spec"]["containers"][0]["args"], *values]
    assert enqueue.command.make_context("enqueue", arguments[1:]).params["redis_url"] == values[1]


def test_a_job_that_is_suspended_is_reported_and_waited_for(plan: RunPlan) -> None:
    body = jobs.workers(plan)
    # its quota may have refused it before
    event = {**REFUSED, "involvedObject": {"kind": "Job", "name": body["metadata"]["name"]}}
    (trouble,) = troubles([jobs.finalizer(plan), {**body, "spec": {**body["spec"], "suspend": True}}], [], [event])
    assert ("it is suspended" in str(trouble), trouble.blocks) == (True, False)


REFUSED = {"involvedObject": {"kind": "Job", "name": "j"}, "reason": "FailedCreate", "message": "exceeded quota: q"}


def job_of(*, active: int) -> dict[str, Any]:
    return {"metadata": {"name": "j"}, "spec": {"parallelism": 2}, "status": {"active": active}}


def test_a_refusal_that_has_passed_is_no_trouble() -> None:
    """The API server remembers it for an hour."""
    (trouble,) = troubles([job_of(active=1)], [], [REFUSED])
    assert "raise the namespace's quota" in str(trouble)
    assert troubles([job_of(active=2)], [], [REFUSED]) == []
    made = pod("w") | {
        "metadata": {"name": "w", "labels": {JOB_NAME_LABEL: "j"}, "creationTimestamp": "2026-01-01T00:00:09Z"}
    }
    for event, is_trouble in (
        (REFUSED | {"lastTimestamp": "2026-01-01T00:00:08Z"}, False),
        (REFUSED | {"lastTimestamp": "2026-01-01T00:00:10Z"}, True),
        (
            REFUSED
            | {"eventTime": "2026-01-01T00:00:08.123456Z", "series": {"lastObservedTime": "2026-01-01T00:00:10.1Z"}},
            True,
        ),
    ):
        assert bool(troubles([job_of(active=1)], [made], [event])) == is_trouble


def test_a_refusal_of_workers_that_are_not_needed_any_more_is_no_trouble(plan: RunPlan) -> None:
    workers = jobs.workers(plan)
    refused = REFUSED | {"involvedObject": {"kind": "Job", "name": workers["metadata"]["name"]}}
    followed = [jobs.finalizer(plan), workers]
    assert troubles(followed, [], [refused], standing("SEALED"))
    assert troubles(followed, [], [refused], standing("DRAINED")) == []


def test_a_refusal_that_is_none_of_a_quota_gets_another_remedy() -> None:
    (trouble,) = troubles([job_of(active=0)], [], [{**REFUSED, "message": "violates PodSecurity restricted"}])
    assert "quota" not in str(trouble)
    assert "mend what it names" in str(trouble)
    unnamed = "failed quota: q: must specify limits.cpu for: queue-eval"
    (trouble,) = troubles([job_of(active=0)], [], [{**REFUSED, "message": unnamed}])
    assert "kubernetes.limits" in str(trouble)


@pytest.mark.parametrize(
    ("kind", "name", "reason", "words"),
    [
        ("Pod", "w", "FailedMount", "pod w: a volume cannot be mounted: no"),
        ("Pod", "w", "FailedAttachVolume", "pod w: a volume cannot be attached to its node: no"),
        ("Pod", "w", "FailedCreatePodSandBox", "pod w: its node cannot start it: no"),
        ("PersistentVolumeClaim", "c", "ProvisioningFailed", "volume claim c: a volume cannot be made: no"),
    ],
)
def test_what_keeps_a_pod_from_starting_is_reported_while_it_does(
    kind: str, name: str, reason: str, words: str
) -> None:
    event = {"involvedObject": {"kind": kind, "name": name}, "reason": reason, "message": "no"}
    waiting = pod("w", phase="Pending") | {"spec": {"volumes": [{"persistentVolumeClaim": {"claimName": "c"}}]}}
    (trouble,) = troubles([], [waiting], [event])
    assert (str(trouble).startswith(words), trouble.blocks) == (True, True)
    # the image is pulled after all of that
    ready = {"type": "PodReadyToStartContainers", "status": "True"}
    assert troubles([], [{**waiting, "status": {"phase": "Pending", "conditions": [ready]}}], [event]) == []
    assert troubles([], [{**waiting, "status": {"phase": "Running"}}], [event]) == []
    # its claims have volumes when it has a node
    scheduled = {"type": "PodScheduled", "status": "True"}
    placed = {**waiting, "status": {"phase": "Pending", "conditions": [scheduled]}}
    assert bool(troubles([], [placed], [event])) == (kind == "Pod")


@pytest.mark.parametrize("reason", ["Unschedulable", "SchedulerError"])
def test_a_pod_that_no_node_takes_is_reported(reason: str) -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": "binding volumes: no"}
    (trouble,) = troubles([], [pod("w", phase="Pending", conditions=[condition])])
    assert "no node takes it: binding volumes: no" in str(trouble)


def test_the_warnings_about_a_run_are_those_about_its_jobs_its_pods_and_their_claims() -> None:
    class Warned(Standing):
        def list(self, kind: str, *, labels: str = "", fields: str = "") -> Any:
            return [{"involvedObject": {"name": name}} for name in ("j", "w", "c", "of-another-run")], "1"

    body = pod("w") | {"spec": {"volumes": [{"emptyDir": {}}, {"persistentVolumeClaim": {"claimName": "c"}}]}}
    found = warnings_about(Warned(), [job_of(active=0)], [body])
    assert [event["involvedObject"]["name"] for event in found] == ["j", "w", "c"]


def test_what_the_follower_waits_for_is_reported() -> None:
    (trouble,) = troubles([], [], follower=waits("redis cannot be reached: Error 111"))
    assert str(trouble).startswith("who follows the run: it waits: redis cannot be reached")
    assert not trouble.blocks


def test_the_nightly_outlives_its_workers_deadline() -> None:
    (body,) = yaml.safe_load_all((ROOT / "k8s" / "overlays" / "nightly" / "cronjob.yaml").read_text())
    eval_yaml = yaml.safe_load((ROOT / "k8s" / "overlays" / "nightly" / "eval.yaml").read_text())
    deadline_s = eval_yaml["kubernetes"].get("deadline_s", KubernetesSettings.model_fields["deadline_s"].default)
    assert body["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"] >= deadline_s + 3600


def test_a_driver_reports_before_its_own_deadline() -> None:
    job = {"spec": {"activeDeadlineSeconds": 7200}, "status": {"startTime": "1970-01-01T01:00:00Z"}}
    assert time_left_s(job, now_s=3600 + 1200) == 7200 - 1200 - REPORTS_WITHIN_S
    assert time_left_s(job, now_s=3600 + 7000) == 0
    short = {"spec": {"activeDeadlineSeconds": 300}, "status": job["status"]}
    assert time_left_s(short, now_s=3600) == 270
    assert time_left_s({"spec": {}, "status": job["status"]}, now_s=0) is None


class Standing(Cluster):
    """Jobs that stand in a namespace."""

    def __init__(self, *jobs: dict[str, Any]) -> None:
        super().__init__(None, "ns")
        self.jobs = {job["metadata"]["name"]: job for job in jobs}
        self.pods: dict[str, dict[str, Any]] = {}
        self.inputs: dict[str, dict[str, Any]] = {}

    def list(self, kind: str, *, labels: str = "", fields: str = "") -> Any:
        if kind == "events":
            return [], "1"
        wanted = dict(part.split("=") for part in labels.split(","))
        standing = self.jobs if kind == "jobs" else self.pods
        return [body for body in standing.values() if wanted.items() <= body["metadata"]["labels"].items()], "1"

    def log(self, pod: str, *, tail: int | None = None) -> str:
        return ""

    def get(self, _kind: str, name: str) -> dict[str, Any] | None:
        return self.jobs.get(name)

    def check(self, kind: str, body: dict[str, Any]) -> None:
        pass

    def create(self, kind: str, body: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        standing = self.jobs if kind == "jobs" else self.inputs
        if found := standing.get(body["metadata"]["name"]):
            return found, False
        standing[body["metadata"]["name"]] = {**body, "metadata": {"uid": "u", **body["metadata"]}}
        return standing[body["metadata"]["name"]], True

    def delete(self, kind: str, name: str, *, uid: str = "") -> bool:
        if uid and self.jobs[name]["metadata"].get("uid", uid) != uid:
            return False
        return kind == "jobs" and self.jobs.pop(name, None) is not None

    def watch(self, _kind: str, *, labels: str, version: str) -> Any:
        yield "BOOKMARK", {"metadata": {"resourceVersion": version}}
        threading.Event().wait()  # nothing happens any more


def failed(job: dict[str, Any], reason: str, message: str = "") -> dict[str, Any]:
    condition = {"type": "Failed", "status": "True", "reason": reason, "message": message}
    return {**job, "status": {"conditions": [condition]}}


def test_what_has_failed_without_a_verdict_is_made_anew_by_another_submit(plan: RunPlan) -> None:
    cluster = Standing()
    names = set(actions.submit(cluster, plan, workers=2))
    assert not any(actions.submit(cluster, plan, workers=2).values())
    for job in (jobs.producer(plan), jobs.finalizer(plan)):
        cluster.jobs[job["metadata"]["name"]] = failed(job, "PodFailurePolicy", INCONCLUSIVE.replace(" 2 ", " 78 "))
    new = {name for name, is_new in actions.submit(cluster, plan, workers=2).items() if is_new}
    assert new == {"qe-example-producer", "qe-example-finalizer"} < names
    assert not any("status" in cluster.jobs[name] for name in new)
    # a verdict stands, whatever else has failed
    cluster.jobs["qe-example-producer"] = failed(jobs.producer(plan), "BackoffLimitExceeded")
    cluster.jobs["qe-example-finalizer"] = failed(jobs.finalizer(plan), "PodFailurePolicy", INCONCLUSIVE)
    assert not any(actions.submit(cluster, plan, workers=2).values())


def test_workers_that_were_followed_by_further_ones_are_not_made_anew(plan: RunPlan) -> None:
    cluster = Standing()
    actions.submit(cluster, plan, workers=2)
    cluster.jobs["qe-example-workers"] = failed(jobs.workers(plan), "BackoffLimitExceeded")
    assert actions.submit(cluster, plan, workers=2)["qe-example-workers"]
    cluster.jobs["qe-example-workers"] = failed(jobs.workers(plan), "BackoffLimitExceeded")
    actions.scale(cluster, "example", 3)
    assert not actions.submit(cluster, plan, workers=2)["qe-example-workers"]


@pytest.mark.parametrize(
    ("state", "message", "is_new"),
    [
        (RunState.SEALED, INCONCLUSIVE, True),  # it has reported before the end
        (RunState.ABORTED, INCONCLUSIVE, False),
        (RunState.DRAINED, "", True),  # it never came to a verdict
        (None, "", True),
        (None, INCONCLUSIVE, False),
    ],
)
def test_reconcile_brings_the_finalizer_back_where_the_run_needs_one(
    plan: RunPlan, state: RunState | None, message: str, is_new: bool
) -> None:
    finalizer = failed(jobs.finalizer(plan), "PodFailurePolicy" if message else "BackoffLimitExceeded", message)
    cluster = Standing(jobs.workers(plan), finalizer)
    assert isinstance(actions.reconcile(cluster, "example", state, known_at_s=0), AnotherFinalizer) == is_new
    assert ("status" not in cluster.jobs["qe-example-finalizer"]) == is_new


def test_reconcile_brings_no_finalizer_to_a_run_that_only_a_person_can_mend(plan: RunPlan) -> None:
    finalizer = failed(jobs.finalizer(plan), "PodFailurePolicy", INCONCLUSIVE)
    cluster = Standing(failed(jobs.workers(plan), "PodFailurePolicy"), finalizer)
    assert isinstance(actions.reconcile(cluster, "example", RunState.SEALED, known_at_s=0), GiveUp)
    assert cluster.jobs["qe-example-finalizer"] is finalizer


@pytest.mark.parametrize("has_finalizer", [True, False])
def test_scale_reports_why_another_job_was_needed_and_whether_the_run_has_a_follower(
    plan: RunPlan, has_finalizer: bool
) -> None:
    finalizer = [failed(jobs.finalizer(plan), "PodFailurePolicy")] if has_finalizer else []
    cluster = Standing(failed(jobs.workers(plan), "DeadlineExceeded"), *finalizer)
    scaled = actions.scale(cluster, "example", 3)
    assert (scaled.job, scaled.parallelism, scaled.new) == (workers_name("example", 2), 3, True)
    assert scaled.because == "it is Failed (DeadlineExceeded)"
    assert scaled.followed == has_finalizer  # that one waits again; a driver that has ended does not


def test_scale_to_fewer_than_work_in_a_job_that_cannot_grow_creates_nothing(plan: RunPlan) -> None:
    """A Job without a run would stand for workers that go on."""
    last = {**jobs.workers(plan, parallelism=6), "status": {"active": 5, "succeeded": 1}}
    cluster = Standing(last)
    scaled = actions.scale(cluster, "example", 2)
    assert (scaled.new, scaled.parallelism, scaled.followed) == (False, 5, False)
    assert list(cluster.jobs) == ["qe-example-workers"]


def test_a_run_that_was_cancelled_gets_no_more_workers_and_keeps_its_verdict(plan: RunPlan) -> None:
    finalizer = failed(jobs.finalizer(plan), "PodFailurePolicy", INCONCLUSIVE)
    left = failed(jobs.workers(plan), "PodFailurePolicy", INCONCLUSIVE.replace("code 2", "code 65"))
    cluster = Standing(left, finalizer)
    with pytest.raises(RunConflictError, match="was cancelled, and that is for good"):
        actions.scale(cluster, "example", 5)
    assert cluster.jobs["qe-example-finalizer"] is finalizer
    assert "qe-example-workers-2" not in cluster.jobs


def test_scale_leaves_a_verdict_that_counts_all_cases(plan: RunPlan) -> None:
    finalizer = failed(jobs.finalizer(plan), "PodFailurePolicy", INCONCLUSIVE.replace("code 2", "code 1"))
    cluster = Standing(failed(jobs.workers(plan), "DeadlineExceeded"), finalizer)
    assert not actions.scale(cluster, "example", 5).followed
    assert cluster.jobs["qe-example-finalizer"] is finalizer


def test_a_submit_takes_the_same_cases_for_the_same_whatever_packed_them(plan: RunPlan) -> None:
    cluster = Standing()
    actions.submit(cluster, plan, workers=2)
    (name,) = [name for name in plan.input_files if name.endswith(".gz")]
    data = gzip.decompress(plan.input_files[name])
    again = replace(plan, input_files={**plan.input_files, name: gzip.compress(data, compresslevel=1)})
    assert again.input_files != plan.input_files
    assert not any(actions.submit(cluster, again, workers=2).values())
    other = replace(plan, input_files={**plan.input_files, name: gzip.compress(data + b"{}")})
    with pytest.raises(RunConflictError):
        actions.submit(cluster, other, workers=2)


def not_begun(job: dict[str, Any], **pod_status: Any) -> Standing:
    """A nightly's driver that has labelled nothing: only its Job's name shows of which run it is."""
    labels = {"queue-eval.dev/role": "driver"}
    cluster = Standing({"metadata": {"name": "night-1", "labels": labels}, "spec": {"parallelism": 1}, **job})
    cluster.pods["p"] = pod("p", "driver", **pod_status)
    cluster.pods["p"]["metadata"] |= {
        "labels": labels | {"batch.kubernetes.io/job-name": "night-1"},
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return cluster


@pytest.mark.parametrize("has_begun_before", [False, True])
def test_a_nightly_that_could_not_begin_is_found_by_its_jobs_name(has_begun_before: bool) -> None:
    end = {
        "conditions": [{"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": "exit code 78"}]
    }
    cluster = not_begun({"status": end}, **ended(78, message="queue-eval: no such file"))
    if has_begun_before:
        cluster.jobs["night-1"]["metadata"]["labels"] |= {RUN_LABEL: "night-1"}
    wait = RunWait(cluster, "night-1", notice=print, show=print, blocked_s=1, sleep=time.sleep, now=time.monotonic)
    with pytest.raises(ConfigError, match="queue-eval: no such file"):
        wait.verdict()
    assert actions.delete(cluster, "night-1") == ["Job night-1"]
    with pytest.raises(NoInputError, match="nothing of it"):
        actions.delete(cluster, "night-1")


@pytest.mark.parametrize(
    ("code", "kind"),
    [(65, DataError), (66, NoInputError), (73, StoreError), (77, JudgeRefusedError), (78, ConfigError)],
)
def test_a_pod_that_no_restart_mends_ends_the_wait_with_its_own_code(
    plan: RunPlan, code: int, kind: type[QueueEvalError]
) -> None:
    message = f"Container queue-eval for pod ns/p failed with exit code {code} matching FailJob rule"
    end = {"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": message}
    cluster = Standing({**jobs.producer(plan), "status": {"conditions": [end]}}, jobs.finalizer(plan))
    cluster.pods["p"] = pod("p", "producer", **ended(code, message="queue-eval: that is wrong"))
    cluster.pods["p"]["metadata"] |= {"creationTimestamp": "2026-01-01T00:00:00Z"}
    cluster.pods["p"]["metadata"]["labels"] |= {RUN_LABEL: "example"}
    wait = RunWait(cluster, "example", notice=print, show=print, blocked_s=1, sleep=time.sleep, now=time.monotonic)
    with pytest.raises(kind, match="queue-eval: that is wrong") as error:
        wait.verdict()
    assert error.value.exit_code == code


@pytest.mark.parametrize(
    "meta", [{"ownerReferences": [{"uid": "another"}]}, {"deletionTimestamp": "2026-01-01T00:00:00Z"}, {"labels": {}}]
)
def test_a_job_that_is_going_or_of_another_is_not_taken_for_ours(plan: RunPlan, meta: dict[str, Any]) -> None:
    standing = jobs.workers(plan)
    cluster = Standing({**standing, "metadata": {**standing["metadata"], **meta}})
    with pytest.raises(RunConflictError, match="none of this submit's"):
        actions.submit(cluster, plan, workers=None)


def test_a_finalizer_that_ended_without_a_verdict_is_trouble_and_scale_brings_another(plan: RunPlan) -> None:
    end = {"type": "Failed", "status": "True", "reason": "PodFailurePolicy"}
    for code, is_trouble in ((1, False), (2, False), (66, True)):
        message = f"Container queue-eval for pod ns/p failed with exit code {code} matching FailJob rule"
        gone = {**jobs.finalizer(plan), "status": {"conditions": [{**end, "message": message}]}}
        assert bool(troubles([gone], [])) == is_trouble
    cluster = Standing(gone, jobs.workers(plan))
    cluster.patch = lambda *_: {}  # type: ignore[method-assign]
    assert actions.scale(cluster, "example", 3).new is False
    assert not JobSeen.of(cluster.jobs["qe-example-finalizer"]).ended


def test_a_run_that_has_its_verdict_is_not_cancelled(plan: RunPlan) -> None:
    complete = {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    cluster = Standing({**jobs.workers(plan), **complete}, {**jobs.finalizer(plan), **complete})
    with pytest.raises(RunConflictError, match="nothing to cancel"):
        actions.cancel(cluster, "example")


def test_why_the_gate_failed_reaches_a_wait_and_a_status(plan: RunPlan) -> None:
    reason = "Faithfulness: mean 0.41 is below 0.7"
    cluster = Following(plan, [REPORT | {"verdict": "fail", "exit_code": 1, "reasons": [reason]}])
    message = "Container queue-eval for pod ns/f failed with exit code 1 matching FailJob rule"
    end = {"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": message}
    cluster.jobs["qe-example-finalizer"]["status"] = {"conditions": [end]}
    wait = RunWait(cluster, "example", notice=print, show=print, blocked_s=1, sleep=time.sleep, now=time.monotonic)
    assert (wait.verdict(), wait.reasons) == (1, [reason])
    assert any(reason in line for line in screen(look(cluster, "example")))


def test_a_run_of_which_the_cases_alone_stand_is_distinguished_from_one_that_is_not_there(plan: RunPlan) -> None:
    cluster = Standing()
    with pytest.raises(NoInputError, match="has nothing of it;"):
        look(cluster, "example")
    cluster.jobs["qe-example"] = jobs.config_map(plan) | {"metadata": {"name": "qe-example", "labels": {}}}
    with pytest.raises(NoInputError, match="nothing of it but its ConfigMap"):
        look(cluster, "example")


def test_a_cancellation_that_failed_is_made_again(plan: RunPlan) -> None:
    cluster = Standing(jobs.workers(plan))
    name = actions.cancel(cluster, "example")
    cluster.jobs[name] = failed(cluster.jobs[name], "BackoffLimitExceeded")
    assert actions.cancel(cluster, "example") == name
    assert not JobSeen.of(cluster.jobs[name]).ended


def test_a_node_that_cannot_be_reached_hides_its_pods_log_and_nothing_else(plan: RunPlan) -> None:
    class NodeAway(Following):
        def log(self, pod: str, *, tail: int | None = None) -> str:
            raise BusyError(f"GET was answered 500: no route to the node of {pod}")

    seen = look(NodeAway(plan, []), "example")
    assert len(seen.jobs) == 2
    assert "no route to the node of f" in str(seen.troubles[0])


def printed(state: str) -> dict[str, Any]:
    """As a follower of this version logs how the run stands."""
    counts = dict.fromkeys(("total", "ready", "delayed", "leased", "scored", "dead"), 0)
    workers = {"count": 0, "in_flight": 0, "waiting": 0}
    return {
        "event": "status",
        "state": state,
        **counts,
        "hold": None,
        "counters": {},
        "workers_in_all": workers,
        "now_s": 0.0,
    }


def standing(state: str, **more: Any) -> StatusLine | None:
    return StatusLine.from_json(printed(state) | more)


@pytest.mark.parametrize("other", [printed("PAUSED"), {"event": "status", "state": "SEALED"}])
def test_a_follower_of_another_version_is_named_and_not_understood(plan: RunPlan, other: dict[str, Any]) -> None:
    seen = look(Following(plan, [printed("SEALED"), other]), "example")
    assert seen.state is RunState.SEALED
    assert "another version" in str(seen.troubles[0])
    assert screen(seen)


REPORT = {"event": "report", "verdict": "inconclusive", "report": "r", "exit_code": 2}


@pytest.mark.parametrize(
    ("states", "has_report", "state"),
    [
        (["OPEN", "SEALED"], True, RunState.SEALED),  # it has reported by its deadline
        (["SEALED", "ABORTED"], True, RunState.ABORTED),
        (["SEALED", "DRAINED"], True, RunState.FINALIZED),
        (["SEALED", "DRAINED"], False, RunState.DRAINED),
        ([], True, None),
    ],
)
def test_a_report_shows_nothing_of_how_the_run_stands_but_of_one_that_is_drained(
    plan: RunPlan, states: list[str], has_report: bool, state: RunState | None
) -> None:
    lines = [*(printed(state) for state in states), *([REPORT] * has_report)]
    cluster = Following(plan, lines)
    seen = look(cluster, "example")
    assert (seen.state, bool(seen.report)) == (state, has_report)


def test_a_report_of_before_a_further_finalizer_is_no_verdict(plan: RunPlan) -> None:
    sealed = printed("SEALED")
    seen = look(Following(plan, [sealed, REPORT, sealed]), "example")
    assert (seen.state, seen.report) == (RunState.SEALED, {})


def test_reconcile_goes_on_with_a_run_that_was_reported_before_its_end(plan: RunPlan) -> None:
    cluster = Following(plan, [printed("SEALED"), REPORT])
    workers = failed(jobs.workers(plan), "BackoffLimitExceeded")
    workers["status"]["conditions"][0]["lastTransitionTime"] = "1970-01-01T00:01:00Z"
    cluster.jobs["qe-example-workers"] = workers
    state = look(cluster, "example").state
    # what is known may be older than their end
    assert isinstance(actions.reconcile(cluster, "example", state, known_at_s=65), Rest)
    # no more is logged of it: another finalizer does that
    ended = failed(jobs.finalizer(plan), "PodFailurePolicy", INCONCLUSIVE)
    without = Standing(workers, ended)
    assert isinstance(actions.reconcile(without, "example", state, known_at_s=65), AnotherFinalizer)
    assert "status" not in without.jobs["qe-example-finalizer"]
    further = {**jobs.further(jobs.workers(plan), 2, 3), "status": workers["status"]}
    later = failed(jobs.workers(plan), "BackoffLimitExceeded")
    later["status"]["conditions"][0]["lastTransitionTime"] = "1970-01-01T00:03:00Z"
    both = Standing(later, further, jobs.finalizer(plan))
    assert isinstance(actions.reconcile(both, "example", state, known_at_s=185), Rest)
    assert isinstance(actions.reconcile(cluster, "example", state, known_at_s=75), Another)


@pytest.mark.parametrize(
    ("states", "outcome"), [([], "nothing was enqueued"), (["OPEN"], "not all was enqueued"), (["SEALED"], "")]
)
def test_a_producer_that_failed_ends_the_wait_unless_the_run_is_sealed(
    plan: RunPlan, states: list[str], outcome: str
) -> None:
    cluster = Following(plan, [printed(state) for state in states])
    cluster.jobs["qe-example-producer"] = failed(jobs.producer(plan), "DeadlineExceeded")
    wait = RunWait(cluster, "example", notice=print, show=lambda _: None, blocked_s=1, sleep=time.sleep, now=time.monotonic)  # fmt: skip
    seen = Seen(cluster.jobs, cluster.pods)
    if not outcome:
        assert wait._ended(seen) is None
        return
    with pytest.raises(UnavailableError, match=outcome):
        wait._ended(seen)
    if states:
        # it may have sealed the run since: its follower logs that in a moment
        late = cluster.jobs["qe-example-producer"]["status"]["conditions"][0]
        late["lastTransitionTime"] = "1970-01-01T00:01:00Z"
        cluster.pods["f"]["status"] = {"containerStatuses": [{"name": "queue-eval", "state": {"running": {"startedAt": "x"}}}]}  # fmt: skip
        assert wait._ended(seen) is None


class Following(Standing):
    """With a finalizer that has logged these lines."""

    def __init__(self, plan: RunPlan, lines: list[dict[str, Any]]) -> None:
        super().__init__(jobs.workers(plan), jobs.finalizer(plan))
        self._lines = lines
        self.pods["f"] = pod("f", "finalizer")
        self.pods["f"]["metadata"] |= {
            "labels": {"queue-eval.dev/role": "finalizer", "queue-eval.dev/run-id": "example"},
            "creationTimestamp": "2026-01-01T00:00:00Z",
        }

    def log(self, pod: str, *, tail: int | None = None) -> str:
        return "\n".join(map(json.dumps, self._lines))


class Veiled(Following):
    """Where logs or events may not be read, or cannot be just now."""

    def __init__(self, plan: RunPlan, hidden: dict[str, Exception]) -> None:
        super().__init__(plan, [printed("SEALED")])
        self._veil = hidden

    def log(self, pod: str, *, tail: int | None = None) -> str:
        if error := self._veil.get("log"):
            raise error
        return super().log(pod, tail=tail)

    def list(self, kind: str, *, labels: str = "", fields: str = "") -> Any:
        if kind == "events" and (error := self._veil.get("events")):
            raise error
        return super().list(kind, labels=labels, fields=fields)


@pytest.mark.parametrize("error", [AccessError("you may not read them"), BusyError("it is away")])
@pytest.mark.parametrize("what", ["log", "events"])
def test_what_is_hidden_is_reported_and_ends_neither_a_look_nor_a_wait(
    plan: RunPlan, what: str, error: Exception
) -> None:
    cluster = Veiled(plan, {what: error})
    seen = look(cluster, "example")
    assert any(str(error) in str(trouble) for trouble in seen.troubles)
    assert (seen.state is RunState.SEALED) == (what == "events")

    shown: list[str] = []
    ticks = itertools.count(0.0, 20.0)
    wait = RunWait(
        cluster, "example", notice=shown.append, show=print, blocked_s=1, sleep=time.sleep, now=lambda: next(ticks)
    )
    pending = pod("w", phase="Pending")
    known = Seen(cluster.jobs, {**cluster.pods, "w": pending})
    wait._say_status(known)
    wait._look_for_trouble(known)
    assert any(str(error) in line for line in shown)


def test_workers_at_work_are_no_blocked_run_whatever_became_of_their_producers_node(plan: RunPlan) -> None:
    cluster = Following(plan, [printed("SEALED")])
    wait = RunWait(cluster, "example", notice=print, show=print, blocked_s=1, sleep=time.sleep, now=time.monotonic)
    at_work = pod(
        "w", containerStatuses=[{"name": "queue-eval", "image": "i", "state": {"running": {"startedAt": "t"}}}]
    )
    known = Seen({**cluster.jobs, "p": jobs.producer(plan)}, {**cluster.pods, "w": at_work})
    assert not wait._goes_on(known)
    wait._say_status(known)
    assert wait._goes_on(known)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"containers": []}, "containers is queue-eval's own"),
        ({"restartPolicy": "Always"}, "restartPolicy is queue-eval's own"),
        ({"terminationGracePeriodSeconds": 300}, r"workers\.grace_s"),
        ({"volumes": {}}, "volumes is no list"),
        ({"securityContext": []}, "securityContext is no dict"),
    ],
)
def test_what_a_pod_cannot_be_given_is_reported(own: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        KubernetesSettings(image="i", pod=own)


def test_a_mount_without_a_place_is_reported() -> None:
    with pytest.raises(ValueError, match="lacks a name or a mountPath"):
        KubernetesSettings(image="i", mounts=({"name": "models"},))


def test_what_a_pod_is_given_goes_beside_what_is_ours(plan: RunPlan) -> None:
    own = {"volumes": [{"name": "models"}], "securityContext": {"fsGroup": 5}, "nodeSelector": {"a": "b"}}
    weights = {"name": "models", "mountPath": "/models", "readOnly": True}
    settings = plan.settings.model_copy(update={"pod": own, "mounts": (weights,)})
    spec = jobs.workers(replace(plan, settings=settings))["spec"]["template"]["spec"]
    assert [volume["name"] for volume in spec["volumes"]][-1] == "models"
    assert spec["containers"][0]["volumeMounts"][-1] == weights
    mounted = {mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
    assert mounted <= {volume["name"] for volume in spec["volumes"]}
    assert (spec["securityContext"]["fsGroup"], spec["securityContext"]["runAsNonRoot"]) == (5, True)
    assert spec["nodeSelector"] == {"a": "b"}


def test_a_worker_that_needs_more_memory_gets_advice_what_to_raise() -> None:
    (trouble,) = troubles([], [pod("w", **ended(137, reason="OOMKilled"))])
    assert "kubernetes.limits.memory" in str(trouble)
    assert "workers.concurrency" in str(trouble)
    assert not trouble.blocks
    (other,) = troubles([], [pod("p", "producer", **ended(137, reason="OOMKilled"))])
    assert "kubernetes.limits.memory" in str(other)
    assert "workers.concurrency" not in str(other)
