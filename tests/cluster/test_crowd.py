"""Five hundred pods: what a run costs the API server does not follow from how many of them there are."""

import json
import time
from collections.abc import Callable, Iterator

import pytest

from queue_eval.kubernetes import jobs
from queue_eval.kubernetes.names import workers_name
from queue_eval.kubernetes.overview import look
from queue_eval.kubernetes.waiting import STATUS_EVERY_S
from testkit.command import Done, queue_eval
from tests.cluster.crowd import PLACED, pretended_node
from tests.cluster.local_cluster import KUBECONFIG
from tests.cluster.place import REDIS_URL
from tests.cluster.stage import Stage

pytestmark = pytest.mark.alone

FEW, MANY = 5, 500
CASES = 12
FOR_THE_STREAMS = 12  # lists and watches to begin with, looks for trouble, and some taken up again
EACH_LOOK = 2  # at the log of the run's follower, every STATUS_EVERY_S


@pytest.fixture
def crowd(stage: Stage) -> Iterator[None]:
    if stage.kubeconfig != str(KUBECONFIG):
        pytest.skip("pretended pods need a cluster of this machine's own")
    with pretended_node(stage.cluster):
        yield


def test_five_hundred_pods_cost_the_api_server_no_more_than_five(
    stage: Stage, crowd: None, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = [measured(stage, pods) for pods in (FEW, MANY)]
    with capsys.disabled():
        print("\n" + "\n".join(json.dumps(row) for row in figures))
    for row in figures:
        assert row["wait_requests"] <= FOR_THE_STREAMS + EACH_LOOK * row["wait_s"] / STATUS_EVERY_S, figures
    few, many = figures
    assert many["status_requests"] == few["status_requests"]
    assert many["scale_requests"] == few["scale_requests"]


def test_five_hundred_workers_are_submitted_as_five_are(
    stage: Stage, crowd: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Straight away, and not by `scale`. All of the run's pods pretend."""
    figures = [submitted(stage, pods) for pods in (FEW, MANY)]
    with capsys.disabled():
        print("\n" + "\n".join(json.dumps(row) for row in figures))
    assert figures[0]["requests"] == figures[1]["requests"]


def submitted(stage: Stage, pods: int) -> dict[str, float]:
    stage.run_id = f"{stage.run_id[:20].strip('-')}-{pods}"
    stage.write(CASES, kubernetes={"pod": PLACED})
    began = time.monotonic()
    done = stage.submit("--workers", str(pods), "--json")
    submit_s = time.monotonic() - began
    body = json.loads(done.out)
    assert len(body["created"]) == 4  # the run's inputs and its three Jobs: the controller makes the pods
    stage.until(lambda: len(stage.running()) == pods, within_s=180)
    all_there_s = time.monotonic() - began
    _must(stage, "delete")
    return {
        "pods": pods,
        "requests": body["requests"],
        "submit_s": round(submit_s, 1),
        "all_there_s": round(all_there_s, 1),
    }


def measured(stage: Stage, pods: int) -> dict[str, float]:
    """A run from submit to verdict whose pods pretend to work, until a real worker does it."""
    stage.run_id = f"{stage.run_id[:20].strip('-')}-{pods}"
    stage.write(CASES)
    stage.provider.admitted = 0
    stage.submit("--workers", "0")
    stage.until(lambda: stage.state() == "SEALED")
    template = stage.cluster.get("jobs", workers_name(stage.run_id))
    assert template
    body = jobs.further(template, 2, 0)
    body["spec"]["template"]["spec"] |= PLACED
    stage.cluster.create("jobs", body)

    began, waiting = time.monotonic(), stage.started("wait", "--json")
    scaled_s = _timed(lambda: _must(stage, "scale", str(pods)))
    stage.until(lambda: len(stage.running()) == pods, within_s=180)
    all_there_s = time.monotonic() - began
    status_s = _timed(lambda: _must(stage, "status"))
    before = stage.cluster.requests
    assert look(stage.cluster, stage.run_id).running == pods
    status_requests = stage.cluster.requests - before
    scale_requests = json.loads(_must(stage, "scale", str(pods // 2), "--json").out)["requests"]
    stage.until(lambda: len(stage.running()) == pods // 2, within_s=180)

    # here it is not Kubernetes that names the judge, and the pods' users can write the store
    allowed = {"QUEUE_EVAL_ALLOWED_JUDGES": stage.provider.url, "QUEUE_EVAL_ALLOWED_SECRETS": "JUDGE_API_KEY"}
    where = ("--redis", REDIS_URL, "--store", stage.store.parent)
    done = queue_eval("worker", stage.run_id, *where, cwd=stage.folder, timeout_s=120, stdin=None, **allowed)
    assert done.code == 0, done.err
    out, err = waiting.communicate(timeout=120)
    assert waiting.returncode == 0, err
    stage.audited(CASES)
    verdict = json.loads(out.splitlines()[-1])
    return {
        "pods": pods,
        "wait_requests": verdict["requests"],
        "wait_s": round(time.monotonic() - began, 1),
        "status_requests": status_requests,
        "scale_requests": scale_requests,
        "scale_s": round(scaled_s, 1),
        "all_there_s": round(all_there_s, 1),
        "status_s": round(status_s, 1),
        "deleted_s": round(_timed(lambda: _must(stage, "delete")), 1),
    }


def _must(stage: Stage, verb: str, *arguments: str) -> Done:
    done = stage.k8s(verb, stage.run_id, *arguments)
    assert done.code == 0, done.err
    return done


def _timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began
