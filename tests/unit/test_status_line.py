"""What `status --json` prints is read back as it was."""

import json
from dataclasses import replace

import pytest

from queue_eval.core.limiter_stats import LaneSeen, LimiterStats
from queue_eval.core.limits import Limits
from queue_eval.core.progress import Progress
from queue_eval.core.run import RunState, RunStats, WorkerSeen
from queue_eval.core.status_line import StatusLine

WORKERS = tuple(WorkerSeen(name=f"w{n}", concurrency=8, in_flight=n, waiting=1, seen_s_ago=0.5) for n in range(30))
STATS = RunStats(
    state=RunState.SEALED, total=9, ready=1, delayed=2, leased=3, scored=2, dead=1, executions=7, hold="judge: 401",
    counters={"judge_calls": 12.0}, workers=WORKERS, now_s=1e9,
)  # fmt: skip
LANE = LaneSeen(run_id="r", weight=1.0, waiting=4, seen_s_ago=0.1, configured=Limits(requests=600.0))
LIMITER = LimiterStats(
    limits=Limits(requests=600.0), headers=Limits(), rate=Limits(requests=590.0, tokens=1e5), factor=0.5, lanes=(LANE,), waiting=4, released=9,
    refused=1, cuts=1, pauses=1, paused_s=0.0, processes=2, jitter_s=0.01, outage_share=Limits(requests=270.0), utilisation=0.9,
)  # fmt: skip


@pytest.mark.parametrize("limiter", [LIMITER, None])
@pytest.mark.parametrize("stats", [STATS, replace(STATS, total=None, hold=None, state=RunState.OPEN)])
def test_a_line_is_read_back_as_it_was(stats: RunStats, limiter: LimiterStats | None) -> None:
    line = StatusLine.of("r", stats, limiter)
    assert StatusLine.from_json(json.loads(json.dumps(line.to_json()))) == line


def test_a_line_that_names_some_workers_counts_all() -> None:
    line = StatusLine.of("r", STATS, None, most_workers=20)
    assert len(line.stats.workers) == 20
    assert (line.workers_in_all.count, line.workers_in_all.in_flight, line.workers_in_all.waiting) == (30, 435, 30)


@pytest.mark.parametrize("lacks", ["state", "total", "now_s", "workers_in_all", "counters"])
def test_a_line_of_another_version_is_none_of_ours(lacks: str) -> None:
    body = StatusLine.of("r", STATS, LIMITER).to_json()
    assert StatusLine.from_json({key: value for key, value in body.items() if key != lacks}) is None
    assert StatusLine.from_json(body | {lacks: object()}) is None


@pytest.mark.parametrize("name", ["total", "ready", "dead"])
def test_an_infinite_count_is_none_of_ours(name: str) -> None:
    body = StatusLine.of("r", STATS, LIMITER).to_json() | {name: float("inf")}
    assert StatusLine.from_json(json.loads(json.dumps(body))) is None


def test_the_line_of_progress_has_a_figure_for_each_metric_those_that_pass_least_first() -> None:
    counters = {"scored:Fine": 10.0, "passed:Fine": 10.0, "scored:Bad": 8.0, "passed:Bad": 2.0, "scored:None": 5.0}
    assert "done · None 0%, Bad 25%, Fine 100% pass · " in line(counters)
    many = {f"scored:M{n}": 10.0 for n in range(9)} | {f"passed:M{n}": float(n) for n in range(9)}
    assert "done · M0 0%, M1 10%, M2 20% pass (of 9 metrics) · " in line(many)
    assert " pass" not in line({"judge_calls": 3.0})


def line(counters: dict[str, float]) -> str:
    stats = RunStats(
        state=RunState.SEALED,
        total=10,
        ready=0,
        delayed=0,
        leased=0,
        scored=10,
        dead=0,
        executions=10,
        counters=counters,
    )
    return Progress.of(stats, elapsed_s=1.0, done_before=0, price=None).line
