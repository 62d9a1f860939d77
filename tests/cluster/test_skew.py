"""The same skewed cases as the queue and as the Indexed baseline, with eight pods of one case in flight each: both makespans beside the bound."""

import json
import random
from typing import Any

import pytest

from loadtest.picture import Chart
from loadtest.ranges import OUT
from loadtest.shapes import bound_s
from loadtest.whole_run import Span, makespan_s, occupancy, spans
from queue_eval.kubernetes import jobs
from queue_eval.kubernetes.names import run_name, workers_name
from testkit.command import queue_eval
from testkit.provider.wire import Fault
from tests.cluster.stage import Stage

pytestmark = pytest.mark.alone

PODS, CASES, ROUNDS = 8, 96, 3  # a case's calls come in three rounds, one after the other
MEAN_S, SPREAD, SEED = 2.0, 1.2, 7


def durations() -> list[float]:
    """Log-normal, with a heavy tail."""
    chance = random.Random(SEED)
    drawn = [chance.lognormvariate(0.0, SPREAD) for _ in range(CASES)]
    return [MEAN_S * CASES * one / sum(drawn) for one in drawn]


def write(stage: Stage, spent: list[float]) -> None:
    """As long as a case takes, so long is it: what the producer's order is made from.

    A limit that never binds: of a judge without any, the limiter first has to find out how many calls it serves.
    """
    workers = {"concurrency": 1, "lease_s": 10, "straggler_times": 0}
    stage.write(CASES, kubernetes={"workers": PODS}, workers=workers, limits={"requests_per_minute": 60_000})
    rows = [
        {"input": f"What colour has item {n}?", "actual_output": f"Item {n} is red.", "retrieval_context": [f"Item {n} is red. " + "It was painted. " * int(20 * s)]}
        for n, s in enumerate(spent)
    ]  # fmt: skip
    (stage.folder / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def worked(stage: Stage) -> list[Span]:
    found = spans(stage.store)
    assert len(found) == CASES
    return found


def test_the_queue_is_near_the_bound_where_static_shards_are_not(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    spent = durations()
    stage.provider.fault = lambda _n, body: Fault(hang_s=_hang(body, spent))
    write(stage, spent)
    stage.submit("--workers", "0")
    stage.until(lambda: stage.state() == "SEALED")
    # all are there before the clock runs, in both ways
    stage.k8s("scale", stage.run_id, str(PODS))
    assert stage.verdict() == 0
    found = {"queue": worked(stage)}
    stage.audited(CASES)
    found["static shards"] = as_shards(stage)
    queue_s, shards_s = map(makespan_s, found.values())
    bound = bound_s(spent, PODS)
    with capsys.disabled():
        print(f"\nskew: bound {bound:.1f} s, queue {queue_s:.1f} s, {PODS} static shards {shards_s:.1f} s")
    chart = Chart(title=f"{PODS} pods, {CASES} log-normal cases: who is busy", x="seconds", y="busy pods", stepped=True)
    chart.write(OUT / "cluster-skew.svg", {way: busy(some, shards_s) for way, some in found.items()})
    assert queue_s <= 1.25 * bound
    assert queue_s <= 0.95 * shards_s


def busy(some: list[Span], until_s: float) -> list[tuple[float, float]]:
    return occupancy(some, first=min(span.started_at for span in some), until_s=until_s)


def _hang(body: dict[str, Any], spent: list[float]) -> float:
    text = str(body["messages"])
    _, found, rest = text.partition("tem ")
    number = "".join(c for c in rest[:4] if c.isdigit())
    return spent[int(number)] / ROUNDS if found and number else 0.0


def as_shards(stage: Stage) -> list[Span]:
    """An Indexed Job of the same image; its own run, whose cases no other shares."""
    stage.k8s("delete", stage.run_id)
    whole = stage.run_id
    stage.run_id = f"{whole[:20].strip('-')}-sh"
    write(stage, durations())
    stage.submit("--workers", "0")
    stage.until(lambda: stage.state() == "SEALED")
    template = stage.cluster.get("jobs", workers_name(stage.run_id))
    assert template
    body = jobs.further(template, 2, PODS)
    body["spec"] |= {"completionMode": "Indexed", "completions": PODS}
    shard = ["--shard-index", "$(JOB_COMPLETION_INDEX)", "--total-shards", str(PODS)]
    body["spec"]["template"]["spec"]["containers"][0]["args"] += shard
    stage.cluster.create("jobs", body)
    stage.until(lambda: stage.job(2).ended == "Complete", within_s=240)
    assert run_name(stage.run_id)
    done = queue_eval("finalize", stage.run_id, "--store", stage.store.parent, "--no-wait", cwd=stage.folder)
    assert done.code == 0, done.err
    return worked(stage)
