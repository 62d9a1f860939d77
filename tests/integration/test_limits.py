"""The limiter as its users meet it: real processes, a provider that refuses by its own count, and the verbs that show and turn it."""

import asyncio
import itertools
import json
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadtest.limiter.scenario import Outcome, Scenario, measure
from queue_eval.core.errors import EXIT_INTERRUPTED
from testkit.command import queue_eval, report, started, write_cases, write_eval
from testkit.provider.server import Provider, Rule
from testkit.provider.wire import SPELLINGS, always
from testkit.redis_server import Server
from testkit.waiting import wait_until

FOUR = Scenario(processes=4, busy=4, tasks=8, limit=100, window_s=2, seconds=10, enforced="sliding", latency="0.02")


def admitted_share(outcome: Outcome, start_s: float, end_s: float) -> float:
    return outcome.rate(start_s, end_s) * outcome.scenario.window_s / outcome.scenario.limit


async def test_i1_i2_processes_share_the_whole_rate_and_are_never_refused() -> None:
    outcome = await measure(FOUR)
    assert outcome.refused_at == []
    # lateness costs rate by the burst rule, and a machine that stands still costs more: `loadtest.limiter` measures that
    assert admitted_share(outcome, 3, 10) >= 0.6


async def test_i10_i15_a_process_that_is_killed_and_one_that_stops_for_five_seconds_are_not_waited_for(
    each_redis: Server,
) -> None:
    async def trouble(processes: "list[subprocess.Popen[str]]", started_at: float) -> None:
        await asyncio.sleep(max(0.0, started_at + 2 - time.time()))
        processes[0].kill()
        processes[1].send_signal(signal.SIGSTOP)
        await asyncio.sleep(5)
        processes[1].send_signal(signal.SIGCONT)

    # with so many calls waiting that a limiter that serves the dead serves no other for seconds
    outcome = await measure(replace(FOUR, tasks=100), trouble, redis_url=each_redis.url)
    # what the stopped one had been given before it stopped arrives late, among what is released then
    assert len(outcome.refused_at) <= 3
    # a process that waited for it would have stood still until 7; what it held back may be learned as lateness then, which costs rate (0.74 was seen)
    assert admitted_share(outcome, 4, 10) >= 0.65


def test_a_judge_that_serves_one_call_at_a_time_is_given_what_it_serves(tmp_path: Path) -> None:
    """It never refuses, and what waits too long is asked in vain: all cases would ask for two dozen calls at once."""
    judge = Provider(serves=1, latency=always(0.2)).start()
    try:
        write_cases(tmp_path, 10)
        retry = {"call_timeout_s": 2, "base_delay_s": 0.05, "max_delay_s": 0.2}
        path = write_eval(tmp_path, judge.url, retry=retry, workers={"processes": 2, "concurrency": 5})
        done = queue_eval("run", path, "--run-id", "r1", cwd=tmp_path)
    finally:
        judge.close()
    assert done.code == 0, done.err
    assert report(tmp_path, "r1")["accounting"]["scored"] == 10
    # seven calls for each case, and the pre-flight
    assert judge.admitted <= 1.05 * (10 * 7 + 1)


@pytest.mark.thorough
async def test_a_competitor_on_the_same_account_is_adapted_to() -> None:
    """The provider's limit is half of what eval.yaml names: the rest is another's."""
    outcome = await measure(Scenario(processes=2, busy=2, tasks=8, limit=100, window_s=2, seconds=20, enforced="sliding", latency="0.02", changes=((0.1, 0.5),)))  # fmt: skip
    assert admitted_share(outcome, 10, 20) >= 0.8 * 0.5
    assert sum(at > 10 for at in outcome.refused_at) <= 0.1 * sum(at > 10 for at in outcome.arrivals)


def limiter_of(done_out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done_out)["limiter"]
    return found


def test_status_shows_the_limiter_and_tune_turns_it_for_calls_that_wait_already(
    tmp_path: Path, provider: Provider
) -> None:
    write_cases(tmp_path, 6)
    path = write_eval(tmp_path, provider.url, limits={"requests_per_minute": 30, "burst": 1})
    run = started("run", path, "--run-id", "r1", "--priority", "pr", cwd=tmp_path)
    try:
        wait_until(lambda: provider.requests >= 2, within_s=60)
        slow = limiter_of(queue_eval("status", "r1", "--json", cwd=tmp_path).out)
        assert (slow["limits"]["requests"], slow["lanes"][0]["weight"]) == (30, 100)
        assert slow["waiting"] > 0
        text = queue_eval("status", "r1", cwd=tmp_path).out
        assert "of 30 requests/min" in text
        assert "without Redis each of" in text
        nothing = queue_eval("tune", "r1", cwd=tmp_path)
        assert (nothing.code, "name what to change" in nothing.err) == (64, True)
        wrong = queue_eval("tune", "r1", "--rpm", "-3", cwd=tmp_path)
        assert (wrong.code, "'-3' is no limit" in wrong.err) == (64, True)
        tuned = queue_eval("tune", "r1", "--rpm", "60000", "--concurrency", "3", "--priority", "7", cwd=tmp_path)
        assert tuned.code == 0, tuned.err
        assert "run r1 now has 60,000 requests/min" in tuned.out
        _, err = run.communicate(timeout=60)
        assert "--priority has no effect: this run has a Redis of its own" in err
    finally:
        run.kill()
        run.communicate()
    assert run.returncode == 0
    body = report(tmp_path, "r1")["limiter"]
    assert body["released"] == body["released_for_this_run"] == provider.requests
    assert body["timeline"][-1]["rate"]["requests"] == 60_000


def test_tune_of_an_unknown_run_names_it(tmp_path: Path, own_redis: Server) -> None:
    done = queue_eval("tune", "nope", "--rpm", "5", "--redis", own_redis.url, cwd=tmp_path)
    assert done.code == 66
    assert "holds no manifest.json" in done.err


def test_concurrency_is_tuned_while_workers_work(tmp_path: Path, provider: Provider, own_redis: Server) -> None:
    provider.latency = always(0.4)
    write_cases(tmp_path, 800)
    path = write_eval(tmp_path, provider.url, workers={"concurrency": 1, "lease_s": 5})
    where = ("--redis", own_redis.url, "--store", "runs")
    assert queue_eval("enqueue", path, "--run-id", "r1", *where, cwd=tmp_path).code == 0
    worker = started("worker", "r1", *where, cwd=tmp_path)
    try:
        wait_until(lambda: provider.admitted >= 3, within_s=60)
        assert queue_eval("tune", "r1", "--concurrency", "20", *where, cwd=tmp_path).code == 0

        def in_flight() -> int:
            (seen,) = json.loads(queue_eval("status", "r1", "--json", *where, cwd=tmp_path).out)["workers"]
            return int(seen["in_flight"])

        wait_until(lambda: in_flight() > 5, within_s=30)
        worker.terminate()
        worker.communicate(timeout=60)
    finally:
        worker.kill()
        worker.communicate()
    assert worker.returncode == EXIT_INTERRUPTED


def test_429s_in_every_spelling_pause_all_calls_cost_no_attempt_and_stand_in_the_report(
    tmp_path: Path, provider: Provider
) -> None:
    provider.limit((Rule(limit=12, window_s=1.0),))
    spellings = itertools.cycle(set(SPELLINGS) - {"day", "89"})

    def spell(_n: int, _body: dict[str, Any]) -> None:
        provider.retry_after = next(spellings)

    provider.fault = spell
    write_cases(tmp_path, 10)
    path = write_eval(tmp_path, provider.url, retry={"call_attempts": 1, "case_attempts": 1})
    done = queue_eval("run", path, "--run-id", "r1", cwd=tmp_path)
    assert done.code == 0, done.err
    body = report(tmp_path, "r1")
    assert (body["accounting"]["scored"], body["accounting"]["dead"]) == (10, 0)
    assert body["accounting"]["judge_calls"] == provider.admitted
    assert body["accounting"]["retries_429"] == provider.statuses[429] == body["limiter"]["refused"] > 0
    assert body["limiter"]["paused_s"] > 0
    page = (tmp_path / "runs" / "r1" / "report.html").read_text()
    assert "<h2>Limiter</h2>" in page


@pytest.mark.parametrize("style", ["openai", "anthropic", "azure"])
def test_limits_come_from_headers_when_the_file_names_none(tmp_path: Path, provider: Provider, style: str) -> None:
    provider.limit((Rule(limit=6000, window_s=60.0),))
    provider.headers = style
    write_cases(tmp_path, 2)
    path = write_eval(tmp_path, provider.url)
    assert queue_eval("run", path, "--run-id", "r1", cwd=tmp_path).code == 0
    rates = [slot["rate"] for slot in report(tmp_path, "r1")["limiter"]["timeline"]]
    assert rates[-1] == ({} if style == "azure" else {"requests": 6000})


def test_a_run_whose_redis_is_away_for_a_while_goes_on_by_its_share(
    tmp_path: Path, provider: Provider, own_redis: Server
) -> None:
    provider.latency = always(0.1)
    write_cases(tmp_path, 12)
    path = write_eval(
        tmp_path, provider.url, limits={"requests_per_minute": 600}, workers={"concurrency": 12, "lease_s": 30}
    )
    where = ("--redis", own_redis.url, "--store", "runs")
    assert queue_eval("enqueue", path, "--run-id", "r1", *where, cwd=tmp_path).code == 0
    worker = started("worker", "r1", *where, cwd=tmp_path)
    try:
        wait_until(lambda: provider.requests >= 15, within_s=60)
        own_redis.kill()
        before = provider.requests
        away_at = time.monotonic()
        wait_until(lambda: provider.requests >= before + 8, within_s=15)
        assert provider.requests - before <= 1 + 9 * (time.monotonic() - away_at)
        own_redis.start()
        worker.communicate(timeout=90)
    finally:
        worker.kill()
        worker.communicate()
    assert worker.returncode == 0
