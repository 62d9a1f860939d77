"""Whole runs as users start them: real processes, real Redis, real HTTP, real signals."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from queue_eval.core import objects
from queue_eval.local.redis_address_file import RedisAddressFile
from testkit.command import (
    CANARY,
    environment,
    python_path,
    queue_eval,
    report,
    rows,
    started,
    write_cases,
    write_eval,
)
from testkit.provider.server import Provider
from testkit.provider.wire import Fault, always
from testkit.redis_server import Server
from testkit.waiting import wait_until


def results(folder: Path, run_id: str) -> int:
    return len(list((folder / "runs" / run_id / "results").glob("*.json")))


def test_a_run_ends_in_a_report_a_gate_and_an_exit_code(tmp_path: Path, provider: Provider) -> None:
    write_cases(tmp_path, 20)
    done = queue_eval("run", write_eval(tmp_path, provider.url), "--run-id", "r1", "--workers", "2", cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "report: runs/r1/report.html" or done.out.splitlines()[-1].endswith(
        "runs/r1/report.html"
    )
    body = report(tmp_path, "r1")
    accounting = body["accounting"]
    assert (body["run_id"], body["verdict"], body["version"]) == ("r1", "pass", 1)
    assert (accounting["cases"], accounting["scored"], accounting["dead"], accounting["missing"]) == (20, 20, 0, 0)
    assert accounting["executions"] == 20
    # the pre-flight call and 7 for each case, by the provider's own count
    assert accounting["judge_calls"] == provider.admitted == 20 * 7 + 1
    assert body["metrics"]["Faithfulness"] | {"mean": 0, "score": 0, "duration_s": 0} == {
        **body["metrics"]["Faithfulness"], "mean": 0, "score": 0, "duration_s": 0, "n": 20, "errors": 0, "judge_calls": 80,
    }  # fmt: skip
    assert body["elapsed_s"] >= body["bound_s"] > 0


def test_every_form_of_the_report_holds_every_case(tmp_path: Path, provider: Provider) -> None:
    write_cases(tmp_path, 6, metadata={"k": 1})
    queue_eval("run", write_eval(tmp_path, provider.url), "--run-id", "r1", cwd=tmp_path)
    folder = tmp_path / "runs" / "r1"
    lines = rows(tmp_path, "r1")
    assert [line["name"] for line in lines] == [f"case {n}" for n in range(6)]
    first = lines[0]
    assert first["status"] == "scored"
    assert first["metadata"] == {"k": 1}
    assert first["metrics"]["Faithfulness"].keys() >= {
        "score",
        "threshold",
        "passed",
        "reason",
        "judge_calls",
        "cost_usd",
        "duration_s",
    }
    assert first.keys() >= {
        "judge_calls",
        "input_tokens",
        "cost_usd",
        "duration_s",
        "attempts",
        "worker",
        "started_at",
        "ended_at",
    }
    with (folder / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6
    suite = ET.parse(folder / "junit.xml").getroot()
    # two metrics on six cases, the gate's checks, and whether the run is conclusive
    assert suite.get("tests") == str(12 + len(report(tmp_path, "r1")["gate"]["checks"]) + 1)
    assert len(list(suite.iter("testcase"))) == int(suite.get("tests", ""))
    assert len(json.loads((folder / "deepeval-test-run.json").read_text())["testCases"]) == 6
    assert "6 cases = 6 scored" in (folder / "summary.md").read_text()
    assert (folder / "report.html").read_text().count("<tr data-kind=") == 6
    assert "unpriced" in (folder / "summary.md").read_text()


def test_prices_give_cost(tmp_path: Path, provider: Provider) -> None:
    write_cases(tmp_path, 4)
    judge = {
        "type": "openai",
        "model": "m",
        "base_url": provider.url,
        "price": {"input_per_million_usd": 2, "output_per_million_usd": 4},
    }
    queue_eval("run", write_eval(tmp_path, provider.url, judge=judge), "--run-id", "r1", cwd=tmp_path)
    accounting = report(tmp_path, "r1")["accounting"]
    assert accounting["cost_usd"] == pytest.approx(
        (accounting["input_tokens"] * 2 + accounting["output_tokens"] * 4) / 1e6, rel=1e-3
    )


def test_a_failed_gate_exits_1_and_a_warning_gate_0(tmp_path: Path, provider: Provider) -> None:
    write_cases(tmp_path, 6)
    gate = {"metrics": {"Faithfulness": {"min_mean": 0.99}}}
    assert queue_eval("run", write_eval(tmp_path, provider.url, gate=gate), "--run-id", "r1", cwd=tmp_path).code == 1
    assert report(tmp_path, "r1")["verdict"] == "fail"
    gate["mode"] = "warn"  # type: ignore[assignment]
    assert queue_eval("run", write_eval(tmp_path, provider.url, gate=gate), "--run-id", "r2", cwd=tmp_path).code == 0
    assert report(tmp_path, "r2")["verdict"] == "fail"


def test_geval_steps_are_worded_once_for_all_workers(tmp_path: Path, provider: Provider) -> None:
    write_cases(tmp_path, 8)
    metrics = [
        {
            "type": "GEval",
            "name": "Correct",
            "criteria": "Is it right?",
            "evaluation_params": ["actual_output", "expected_output"],
        }
    ]
    done = queue_eval(
        "run",
        write_eval(tmp_path, provider.url, metrics=metrics, gate={}),
        "--run-id",
        "r1",
        "--workers",
        "2",
        cwd=tmp_path,
    )
    assert done.code == 0, done.err
    manifest = json.loads((tmp_path / "runs" / "r1" / "manifest.json").read_text())
    assert manifest["settings"]["metrics"][0]["evaluation_steps"]
    assert provider.admitted == 8 + 1 + 1  # one for each case, the pre-flight, the steps


def test_i09_producing_again_is_a_no_op_and_another_manifest_an_error(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    write_cases(tmp_path, 4)
    command = ("run", write_eval(tmp_path, provider.url), "--run-id", "r1", "--redis", each_redis.url)
    assert queue_eval(*command, cwd=tmp_path).code == 0
    before = provider.admitted
    assert queue_eval(*command, cwd=tmp_path).code == 0
    assert provider.admitted == before
    write_cases(tmp_path, 5)
    other = queue_eval(*command, cwd=tmp_path)
    assert other.code == 65
    assert "exists with other cases" in other.err
    assert results(tmp_path, "r1") == 4


def test_i14_finalizing_twice_gives_the_same_bytes(tmp_path: Path, provider: Provider) -> None:
    write_cases(tmp_path, 6)
    queue_eval("run", write_eval(tmp_path, provider.url), "--run-id", "r1", cwd=tmp_path)
    folder = tmp_path / "runs" / "r1"
    names = [
        "report.json",
        "results.jsonl",
        "results.csv",
        "junit.xml",
        "summary.md",
        "report.html",
        "deepeval-test-run.json",
    ]
    before = {name: (folder / name).read_bytes() for name in names}
    assert queue_eval("finalize", "r1", "--no-wait", cwd=tmp_path).code == 0
    assert {name: (folder / name).read_bytes() for name in names} == before


class TestResume:
    def test_ctrl_c_stops_gracefully_and_resume_asks_only_for_the_rest(
        self, tmp_path: Path, provider: Provider
    ) -> None:
        provider.latency = always(0.1)
        write_cases(tmp_path, 40)
        path = write_eval(
            tmp_path, provider.url, workers={"processes": 2, "concurrency": 2, "grace_s": 5, "lease_s": 2}
        )
        run = started("run", path, "--run-id", "r1", cwd=tmp_path)
        wait_until(lambda: (tmp_path / "runs/r1/results").is_dir() and results(tmp_path, "r1") >= 5, within_s=60)
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=60)
        assert run.returncode == 75, err
        assert "queue-eval run --resume r1" in err
        stored = results(tmp_path, "r1")
        assert 5 <= stored < 40
        before = provider.admitted
        done = queue_eval("run", "--resume", "r1", cwd=tmp_path)
        assert done.code == 0, done.err
        assert f"{stored} stored already" in done.err
        accounting = report(tmp_path, "r1")["accounting"]
        assert (accounting["cases"], accounting["scored"], accounting["missing"]) == (40, 40, 0)
        assert provider.admitted - before == (40 - stored) * 7 + 1
        assert accounting["judge_calls"] == provider.admitted

    def test_a_killed_run_leaves_nothing_in_the_way(self, tmp_path: Path, provider: Provider) -> None:
        provider.latency = always(0.5)  # long enough for another process to come and see
        write_cases(tmp_path, 40)
        path = write_eval(tmp_path, provider.url, workers={"processes": 1, "concurrency": 2})
        run = started("run", path, "--run-id", "r1", cwd=tmp_path)
        wait_until(lambda: (tmp_path / "runs/r1/results").is_dir() and results(tmp_path, "r1") >= 2, within_s=60)
        second = queue_eval("run", path, "--run-id", "r1", cwd=tmp_path)
        assert (second.code, "is under way in another process" in second.err) == (64, True)
        run.kill()
        provider.latency = always(0.0)
        run.communicate(timeout=30)
        wait_until(
            lambda: RedisAddressFile(tmp_path / "runs", "r1").url() is None, within_s=10
        )  # its Redis ends after it
        assert queue_eval("status", "r1", cwd=tmp_path).code == 0
        done = queue_eval("run", "--resume", "r1", cwd=tmp_path)
        assert done.code == 0, done.err
        assert report(tmp_path, "r1")["accounting"]["scored"] == 40

    def test_naming_the_yaml_too_is_checked_against_the_manifest(self, tmp_path: Path, provider: Provider) -> None:
        write_cases(tmp_path, 4)
        path = write_eval(tmp_path, provider.url)
        queue_eval("run", path, "--run-id", "r1", cwd=tmp_path)
        assert queue_eval("run", path, "--resume", "r1", cwd=tmp_path).code == 0
        write_eval(tmp_path, provider.url, metrics=[{"type": "FaithfulnessMetric"}], gate={})
        other = queue_eval("run", path, "--resume", "r1", cwd=tmp_path)
        assert (other.code, "other metrics, judge or gate" in other.err) == (65, True)

    def test_how_a_run_is_carried_out_may_change_when_it_goes_on(self, tmp_path: Path, provider: Provider) -> None:
        write_cases(tmp_path, 4)
        path = write_eval(tmp_path, provider.url)
        queue_eval("run", path, "--run-id", "r1", cwd=tmp_path)
        (tmp_path / "runs/r1/results").rename(tmp_path / "runs/r1/old")
        write_eval(tmp_path, provider.url, limits={"requests_per_minute": 600}, workers={"concurrency": 3})
        done = queue_eval("run", path, "--resume", "r1", cwd=tmp_path)
        assert done.code == 0, done.err
        settings = json.loads((tmp_path / "runs/r1/manifest.json").read_text())["settings"]
        assert (settings["limits"]["requests_per_minute"], settings["workers"]["concurrency"]) == (600, 3)

    def test_an_unknown_run_is_reported_as_unknown(self, tmp_path: Path) -> None:
        done = queue_eval("run", "--resume", "nope", cwd=tmp_path)
        assert (done.code, "holds no manifest.json of it" in done.err) == (66, True)
        done = queue_eval("status", "nope", cwd=tmp_path)
        assert (done.code, "nope" in done.err) == (66, True)


class TestDeath:
    def test_a_killed_worker_loses_nothing(self, tmp_path: Path, provider: Provider) -> None:
        provider.latency = always(0.4)
        write_cases(tmp_path, 40)
        path = write_eval(tmp_path, provider.url, workers={"processes": 2, "concurrency": 3, "lease_s": 1.5})
        run = started("run", path, "--run-id", "r1", cwd=tmp_path)
        logs = [tmp_path / f"runs/r1/logs/worker-{n}.log" for n in (1, 2)]
        wait_until(lambda: all(log.exists() and '"start"' in log.read_text() for log in logs), within_s=60)
        wait_until((tmp_path / "runs/r1/results").is_dir, within_s=60)
        doomed = workers_of(run.pid)[0]

        def is_stopped_with_cases() -> bool:
            os.kill(doomed, signal.SIGSTOP)
            wait_until(lambda: _is_stopped(doomed), within_s=60)  # a write under way ends first
            if _holds_cases(doomed, tmp_path / "runs"):
                return True
            os.kill(doomed, signal.SIGCONT)
            return False

        wait_until(is_stopped_with_cases, within_s=60)
        os.kill(doomed, signal.SIGKILL)
        _, err = run.communicate(timeout=90)
        assert run.returncode == 0, err
        accounting = report(tmp_path, "r1")["accounting"]
        assert (accounting["scored"], accounting["dead"], accounting["missing"]) == (40, 0, 0)
        assert accounting["executions"] > 40
        assert accounting["judge_calls"] <= provider.admitted

    @pytest.mark.parametrize("poisoned", [1, 4])
    def test_i04_a_case_that_kills_its_worker_is_dead_with_that_reason_and_the_others_finish(
        self, tmp_path: Path, provider: Provider, each_redis: Server, poisoned: int
    ) -> None:
        write_cases(tmp_path, 6)
        with (tmp_path / "cases.jsonl").open("a") as file:
            for n in range(poisoned):
                file.write(json.dumps({"name": f"poison {n}", "input": "POISON", "actual_output": "x"}) + "\n")
        (tmp_path / "poison_metric.py").write_text(POISON)
        workers = {"processes": 1, "concurrency": 7, "lease_s": 1}  # the others are in flight with it
        path = write_eval(
            tmp_path,
            provider.url,
            metrics=[{"type": "poison_metric:Poison"}],
            gate={},
            workers=workers,
            retry={"case_attempts": 1},
        )
        done = queue_eval(
            "run", path, "--run-id", "r1", "--redis", each_redis.url, cwd=tmp_path, PYTHONPATH=python_path(tmp_path)
        )
        assert done.code == 2, done.err  # 6 of 7 or 10 are below the coverage floor
        by_name = {row["name"]: row for row in rows(tmp_path, "r1")}
        for n in range(poisoned):
            assert by_name[f"poison {n}"]["status"] == "dead"
            assert by_name[f"poison {n}"]["reason"] == "3 workers died with it or lost it"
        assert sum(row["status"] == "scored" for row in by_name.values()) == 6

    def test_dead_cases_can_be_retried(self, tmp_path: Path, provider: Provider) -> None:
        ill = True
        provider.fault = lambda _n, body: (
            Fault(400, '{"error": "content_filter"}') if ill and "Item 3 " in str(body) else None
        )
        write_cases(tmp_path, 6)
        path = write_eval(tmp_path, provider.url, metrics=[{"type": "FaithfulnessMetric"}], gate={})
        assert queue_eval("run", path, "--run-id", "r1", cwd=tmp_path).code == 2
        assert report(tmp_path, "r1")["accounting"]["dead"] == 1
        ill = False
        done = queue_eval("retry", "r1", cwd=tmp_path)
        assert done.code == 0, done.err
        accounting = report(tmp_path, "r1")["accounting"]
        assert (accounting["scored"], accounting["dead"]) == (6, 0)
        assert accounting["judge_calls"] == provider.admitted

    def test_retry_asks_again_for_exactly_the_metrics_without_a_score(self, tmp_path: Path, provider: Provider) -> None:
        ill = True

        def fault(_n: int, body: dict[str, Any]) -> Fault | None:
            return Fault(400, '{"error": "content_filter"}') if ill and _asks_for_courtesy_of(body, 3) else None

        provider.fault = fault
        write_cases(tmp_path, 6)
        path = write_eval(tmp_path, provider.url, metrics=COURTESY, gate={"metrics": {"Courtesy": {"min_mean": 0.0}}})
        done = queue_eval("run", path, "--run-id", "r1", cwd=tmp_path)
        assert done.code == 2, done.err
        assert report(tmp_path, "r1")["metrics"]["Courtesy"]["errors"] == 1
        assert "next: queue-eval retry r1 --store " in done.out
        assert "0 enqueued, 6 stored already" in queue_eval("run", "--resume", "r1", cwd=tmp_path).err
        before = {row["name"]: row["metrics"] for row in rows(tmp_path, "r1")}

        for is_mended in (False, True):
            ill = not is_mended
            provider.bodies.clear()
            done = queue_eval("retry", "r1", cwd=tmp_path)
            assert done.code == (0 if is_mended else 2), done.err
            asked = [body for body in provider.bodies if "Item" in str(body)]
            assert asked
            assert all(_asks_for_courtesy_of(body, 3) for body in asked)
            body = report(tmp_path, "r1")
            accounting = body["accounting"]
            assert (accounting["scored"], accounting["dead"], accounting["missing"]) == (6, 0, 0)
            assert (accounting["judge_calls"], accounting["unrecorded_executions"]) == (provider.admitted, 0)
            assert {m["n"] for m in body["metrics"].values()} == ({6} if is_mended else {5, 6})
        assert "next:" not in done.out
        after = {row["name"]: row["metrics"] for row in rows(tmp_path, "r1")}
        assert {name for name in after if after[name] != before[name]} == {"case 3"}

        provider.bodies.clear()
        assert queue_eval("retry", "r1", cwd=tmp_path).code == 0
        assert provider.bodies == []


COURTESY = [
    {"type": "AnswerRelevancyMetric"},
    {
        "type": "GEval",
        "name": "Courtesy",
        "evaluation_steps": ["Is there COURTESY?"],
        "evaluation_params": ["actual_output"],
    },
]


def _asks_for_courtesy_of(body: dict[str, Any], item: int) -> bool:
    return "COURTESY" in str(body) and f"Item {item} " in str(body)


class TestJudgeTrouble:
    def test_429_and_5xx_are_waited_out_and_counted(self, tmp_path: Path, provider: Provider) -> None:
        faults = {
            5: Fault(429, headers={"Retry-After": "0.2"}),
            9: Fault(503),
            14: Fault(cut=True),
            20: Fault(text="no json"),
            25: Fault(429),
        }
        provider.fault = lambda n, _body: faults.get(n)
        write_cases(tmp_path, 10)
        done = queue_eval("run", write_eval(tmp_path, provider.url), "--run-id", "r1", cwd=tmp_path)
        assert done.code == 0, done.err
        accounting = report(tmp_path, "r1")["accounting"]
        assert (accounting["scored"], accounting["retries_429"]) == (10, 2)
        assert accounting["judge_calls"] == provider.admitted

    def test_a_bad_key_is_found_before_anything_is_enqueued(self, tmp_path: Path, provider: Provider) -> None:
        provider.fault = lambda _n, _body: Fault(401, f"Incorrect API key provided: {CANARY}")
        write_cases(tmp_path, 5)
        done = queue_eval("run", write_eval(tmp_path, provider.url), "--run-id", "r1", cwd=tmp_path)
        assert done.code == 77
        assert "check judge.api_key_env" in done.err
        assert CANARY not in done.err
        assert not (tmp_path / "runs/r1/manifest.json").exists()

    def test_a_judge_that_is_not_there_is_found_before_anything_is_enqueued(self, tmp_path: Path) -> None:
        write_cases(tmp_path, 5)
        path = write_eval(tmp_path, "http://127.0.0.1:9/v1", retry={"call_attempts": 2, "base_delay_s": 0.01})
        done = queue_eval("run", path, "--run-id", "r1", cwd=tmp_path)
        assert (done.code, "cannot be reached" in done.err) == (69, True)

    def test_a_key_that_dies_mid_run_holds_all_burns_nothing_and_goes_on_after_the_fix(
        self, tmp_path: Path, provider: Provider
    ) -> None:
        revoked = False
        provider.fault = lambda n, _body: Fault(401, "revoked") if revoked else None
        provider.latency = always(0.05)
        write_cases(tmp_path, 30)
        path = write_eval(tmp_path, provider.url, workers={"processes": 2, "concurrency": 2, "lease_s": 2})
        run = started("run", path, "--run-id", "r1", cwd=tmp_path)
        wait_until(lambda: (tmp_path / "runs/r1/results").is_dir() and results(tmp_path, "r1") >= 4, within_s=60)
        revoked = True
        wait_until(lambda: _is_held(tmp_path, "the judge refuses our key"), within_s=40)
        revoked = False
        _, err = run.communicate(timeout=90)
        assert run.returncode == 0, err
        assert "held, no worker claims cases: judge: the judge refuses our key" in err
        accounting = report(tmp_path, "r1")["accounting"]
        assert (accounting["scored"], accounting["dead"], accounting["missing"]) == (30, 0, 0)
        assert accounting["judge_calls"] == provider.admitted

    def test_a_judge_that_fails_for_everyone_burns_no_attempt(self, tmp_path: Path, provider: Provider) -> None:
        down = False
        provider.fault = lambda _n, _body: Fault(503) if down else None
        write_cases(tmp_path, 24)
        provider.latency = always(0.1)
        retry = {"call_attempts": 2, "case_attempts": 1, "base_delay_s": 0.05, "max_delay_s": 0.1}
        path = write_eval(tmp_path, provider.url, retry=retry, workers={"processes": 1, "concurrency": 4, "lease_s": 2})
        run = started("run", path, "--run-id", "r1", cwd=tmp_path)
        wait_until(lambda: (tmp_path / "runs/r1/results").is_dir() and results(tmp_path, "r1") >= 4, within_s=60)
        down = True
        wait_until(lambda: _is_held(tmp_path, "serves no call"), within_s=40)
        down = False
        _, err = run.communicate(timeout=90)
        assert run.returncode == 0, err
        accounting = report(tmp_path, "r1")["accounting"]
        assert (accounting["scored"], accounting["dead"]) == (24, 0)

    def test_a_failing_metric_is_no_score_and_below_the_coverage_floor_the_verdict_is_inconclusive(
        self, tmp_path: Path, provider: Provider
    ) -> None:
        provider.fault = lambda _n, body: (
            Fault(text="never json") if '"claims"' in str(body) and "Item 1 " in str(body) else None
        )
        write_cases(tmp_path, 5)
        done = queue_eval("run", write_eval(tmp_path, provider.url), "--run-id", "r1", cwd=tmp_path)
        assert done.code == 2
        body = report(tmp_path, "r1")
        assert body["verdict"] == "inconclusive"
        assert (body["metrics"]["Faithfulness"]["n"], body["metrics"]["Faithfulness"]["errors"]) == (4, 1)
        assert body["metrics"]["AnswerRelevancy"]["n"] == 5
        assert body["accounting"]["scored"] == 5

    def test_a_server_without_json_schema_is_served_all_the_same(self, tmp_path: Path, provider: Provider) -> None:
        provider.fault = lambda _n, body: (
            Fault(400, "response_format json_schema is not supported")
            if "json_schema" in body.get("response_format", {}).get("type", "")
            else None
        )
        write_cases(tmp_path, 3)
        done = queue_eval("run", write_eval(tmp_path, provider.url), "--run-id", "r1", cwd=tmp_path)
        assert done.code == 0, done.err
        assert report(tmp_path, "r1")["accounting"]["judge_calls"] == provider.admitted


class TestSecrets:
    def test_the_key_is_sent_to_the_judge_and_written_nowhere(self, tmp_path: Path, provider: Provider) -> None:
        provider.fault = lambda n, _body: Fault(500, f"error with key {CANARY}") if n == 4 else None
        write_cases(tmp_path, 4)
        done = queue_eval("run", write_eval(tmp_path, provider.url), "--run-id", "r1", cwd=tmp_path)
        assert provider.keys == {f"Bearer {CANARY}"}
        written = b"".join(p.read_bytes() for p in (tmp_path / "runs").rglob("*") if p.is_file())
        assert CANARY.encode() not in written
        assert CANARY not in done.out + done.err

    def test_untrusted_text_is_harmless_in_every_report(self, tmp_path: Path, provider: Provider) -> None:
        evil = "<script>alert(1)</script> @everyone [x](http://evil) =cmd|'/c' \x1b[31m\u202e \x9b31m"
        (tmp_path / "cases.jsonl").write_text(
            json.dumps({"name": evil, "input": evil, "actual_output": f"={evil}", "retrieval_context": [evil]}) + "\n"
        )
        done = queue_eval("run", write_eval(tmp_path, provider.url, gate={}), "--run-id", "r1", cwd=tmp_path)
        folder = tmp_path / "runs" / "r1"
        html = (folder / "report.html").read_text()
        assert "<script>alert" not in html
        assert "default-src 'none'" in html
        summary = (folder / "summary.md").read_text()
        assert "<script" not in summary
        assert "@everyone" not in summary
        assert "](http" not in summary
        assert not re.search(r"^=", next(csv.reader([(folder / "results.csv").read_text().splitlines()[1]]))[1])
        ET.parse(folder / "junit.xml")
        written = "".join(path.read_text(encoding="utf-8") for path in folder.iterdir() if path.is_file())
        assert not {"\x1b", "\x9b"} & set(written + done.out + done.err)


class TestInput:
    def test_standard_input(self, tmp_path: Path, provider: Provider) -> None:
        cases = write_cases(tmp_path, 3).read_text()
        done = queue_eval(
            "run", write_eval(tmp_path, provider.url), "--dataset", "-", "--run-id", "r1", cwd=tmp_path, stdin=cases
        )
        assert done.code == 0, done.err
        assert report(tmp_path, "r1")["accounting"]["cases"] == 3

    def test_identical_cases_are_kept_and_mentioned(self, tmp_path: Path, provider: Provider) -> None:
        cases = write_cases(tmp_path, 2).read_text()
        (tmp_path / "cases.jsonl").write_text(cases + cases)
        done = queue_eval("run", write_eval(tmp_path, provider.url), "--run-id", "r1", cwd=tmp_path)
        assert "2 cases are identical to others" in done.err
        accounting = report(tmp_path, "r1")["accounting"]
        assert (accounting["cases"], accounting["scored"], accounting["duplicates"]) == (4, 4, 2)

    def test_a_part_of_the_cases(self, tmp_path: Path, provider: Provider) -> None:
        write_cases(tmp_path, 10)
        queue_eval("run", write_eval(tmp_path, provider.url), "--limit", "3", "--run-id", "r1", cwd=tmp_path)
        assert [row["name"] for row in rows(tmp_path, "r1")] == ["case 0", "case 1", "case 2"]
        assert report(tmp_path, "r1")["dataset"]["selection"] == "limit 3"

    def test_large_payloads_travel_by_reference_to_the_store(self, tmp_path: Path, provider: Provider) -> None:
        write_cases(tmp_path, 3, context=["x" * 40_000])
        done = queue_eval("run", write_eval(tmp_path, provider.url), "--run-id", "r1", cwd=tmp_path)
        assert done.code == 0, done.err
        assert len(list((tmp_path / "runs/r1/payloads").iterdir())) == 3

    @pytest.mark.parametrize(
        ("cases", "sections", "code", "message"),
        [
            ("", {}, 65, "cases.jsonl: no cases"),
            ('{"input": "q"', {}, 65, "cases.jsonl:1: not JSON"),
            ('{"input": "q", "actual_output": "a"}\n', {}, 65, "cases.jsonl:1: Faithfulness needs retrieval_context"),
            ('{"input": "q", "actual_output": "' + "x" * 3_000_000 + '"}', {}, 65, "max_case_bytes"),
            (None, {}, 66, "cases.jsonl: no such file"),
            (
                '{"input": "q"}\n',
                {"metrics": [{"type": "NoMetric"}], "gate": {}},
                78,
                "'NoMetric' is no DeepEval metric",
            ),
            ('{"input": "q"}\n', {"store": "gs://bucket"}, 78, "is no place for results"),
            (
                '{"input": "q"}\n',
                {"redis": {"url": "redis://127.0.0.1:1"}, "metrics": [{"type": "AnswerRelevancyMetric"}]},
                69,
                "redis at redis://127.0.0.1:1",
            ),
            ('{"input": "q"}\n', {"redis": {"url": "http://x"}}, 78, "is no Redis URL"),
            ('{"input": "q"}\n', {"redis": {"url": "redis://127.0.0.1:1/abc"}}, 78, "a number, and not 'abc'"),
        ],
    )
    def test_bad_input_gets_one_clear_message_and_its_exit_code(
        self,
        tmp_path: Path,
        provider: Provider,
        cases: str | None,
        sections: dict[str, object],
        code: int,
        message: str,
    ) -> None:
        if cases is not None:
            (tmp_path / "cases.jsonl").write_text(cases)
        done = queue_eval("run", write_eval(tmp_path, provider.url, **sections), "--run-id", "r1", cwd=tmp_path)
        assert done.code == code, done.err
        assert message in done.err
        assert "Traceback" not in done.err
        assert not (tmp_path / "runs/r1/manifest.json").exists()

    def test_a_store_that_cannot_be_written(self, tmp_path: Path, provider: Provider) -> None:
        write_cases(tmp_path, 2)
        (tmp_path / "runs").touch()
        done = queue_eval("run", write_eval(tmp_path, provider.url), "--run-id", "r1", cwd=tmp_path)
        assert (done.code, "--store" in done.err) == (73, True)
        assert provider.requests == 0

    @pytest.mark.parametrize(
        "arguments",
        [
            ["run"],
            ["run", "x.yaml", "--run-id", "../up"],
            ["nonsense"],
            ["run", "--workers", "0", "x"],
            ["run", "--resume", "a", "--run-id", "b"],
            ["worker", "r1", "--wait-timeout", "nan"],
            ["finalize", "r1", "--timeout", "-1"],
        ],
    )
    def test_mistakes_on_the_command_line(self, tmp_path: Path, arguments: list[str]) -> None:
        write_cases(tmp_path, 1)
        done = queue_eval(*arguments, cwd=tmp_path)
        assert done.code in (64, 66)
        assert done.err.startswith("queue-eval: ")
        assert "Traceback" not in done.err


def test_the_emulation_serves_a_whole_run_with_one_worker(tmp_path: Path, provider: Provider) -> None:
    write_cases(tmp_path, 8)
    code = "import queue_eval.local.find_redis as f; f.server_binary = lambda: None; from queue_eval.cli.main import main; main()"

    done = subprocess.run(
        [sys.executable, "-c", code, "run", str(write_eval(tmp_path, provider.url)), "--run-id", "r1"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "one worker runs in this process on an emulation" in done.stderr
    assert report(tmp_path, "r1")["accounting"]["scored"] == 8


def test_json_events_are_json(tmp_path: Path, provider: Provider) -> None:
    write_cases(tmp_path, 4)
    done = queue_eval("run", write_eval(tmp_path, provider.url), "--run-id", "r1", "--json", cwd=tmp_path)
    events = [json.loads(line) for line in done.out.splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["produced", "report"]
    assert events[-1]["verdict"] == "pass"


def test_a_model_by_import_path_is_judged_with_under_the_same_accounting(tmp_path: Path) -> None:
    write_cases(tmp_path, 5)
    (tmp_path / "my_model.py").write_text(MODEL)
    path = write_eval(tmp_path, "", judge={"type": "import", "path": "my_model:Mine", "params": {"greeting": "hi"}})
    done = queue_eval("run", path, "--run-id", "r1", cwd=tmp_path, PYTHONPATH=python_path(tmp_path))
    assert done.code == 0, done.err
    accounting = report(tmp_path, "r1")["accounting"]
    assert (accounting["scored"], accounting["judge_calls"]) == (5, 36)
    assert accounting["unmetered_calls"] == 36


def _is_stopped(pid: int) -> bool:
    states = [path.read_text().rsplit(")", 1)[1].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


def _holds_cases(pid: int, store: Path) -> bool:
    """Cases without a result, as the run's own Redis knows it: workers carry their process in their name."""
    url = RedisAddressFile(store, "r1").url()
    assert url
    with Redis.from_url(url, decode_responses=True) as redis:
        cases = [str(lease).partition(":")[0] for lease in redis.zrange("qe:leases:r1", 0, -1)]
        its_own = [
            case for case in cases if f"-{pid}-" in str(redis.hget(f"rq:job:queue-eval-r1_{case}", "worker_name"))
        ]
    return any(not (store / "r1" / objects.result(case)).exists() for case in its_own)


def _is_held(folder: Path, reason: str) -> bool:
    """And nothing is in flight: all that failed has found out that it is not to blame."""
    status = json.loads(queue_eval("status", "r1", "--json", cwd=folder).out)
    return reason in (status["hold"] or "") and status["leased"] == 0


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def workers_of(run: int) -> list[int]:
    """The template is a child of `run`, and the workers are the template's."""
    found = [worker for child in children_of(run) for worker in children_of(child)]
    assert found
    return found


def test_a_killed_worker_leaves_its_part_of_the_limit_to_the_others_at_once(
    tmp_path: Path, provider: Provider, own_redis: Server
) -> None:
    """The limiter keeps what a process was promised for an outage, unless it is known to have ended."""
    provider.latency = always(0.2)
    write_cases(tmp_path, 60)
    limits = {"requests_per_minute": 6000}
    path = write_eval(tmp_path, provider.url, limits=limits, workers={"processes": 2, "concurrency": 4, "lease_s": 2})
    run = started("run", path, "--run-id", "r1", "--redis", own_redis.url, cwd=tmp_path)

    def promised(pid: int) -> bool:
        redis = Redis.from_url(own_redis.url)
        names: list[Any] = [name for key in redis.scan_iter("qe:limit:*:shares") for name in redis.hgetall(key)]
        return any(f"-{pid}-".encode() in name for name in names)

    wait_until(lambda: len(list((tmp_path / "runs" / "r1" / "results").glob("*"))) >= 2, within_s=60)
    killed = workers_of(run.pid)[0]
    wait_until(lambda: promised(killed), within_s=10)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not promised(killed), within_s=5)
    _, err = run.communicate(timeout=90)
    assert run.returncode == 0, err


POISON = """
import os, signal
from deepeval.metrics import BaseMetric

class Poison(BaseMetric):
    def __init__(self, threshold=0.5, model=None, async_mode=True):
        self.threshold = threshold
    async def a_measure(self, test_case, *args, **kwargs):
        if test_case.input == "POISON":
            os.kill(os.getpid(), signal.SIGKILL)
        self.score, self.success = 1.0, True
        return self.score
    def measure(self, *args, **kwargs):
        raise NotImplementedError
    def is_successful(self):
        return self.success
"""

MODEL = """
from deepeval.models import DeepEvalBaseLLM
from queue_eval.judge.lexical import LexicalJudge

class Mine(DeepEvalBaseLLM):
    def __init__(self, greeting):
        self.judge = LexicalJudge()
    def load_model(self): return self
    def generate(self, prompt): raise NotImplementedError
    async def a_generate(self, prompt, schema=None):
        return (await self.judge.ask(prompt, schema)).text
    def get_model_name(self): return "mine"
"""


def test_a_run_whose_results_lie_in_a_bucket(tmp_path: Path, provider: Provider, s3_url: str) -> None:
    import boto3

    s3 = boto3.client("s3", endpoint_url=s3_url)
    s3.create_bucket(Bucket="evaluations")
    write_cases(tmp_path, 8)
    path = write_eval(tmp_path, provider.url, store="s3://evaluations/nightly")
    missing = queue_eval("run", path, "--store", "s3://nowhere/x", cwd=tmp_path, AWS_ENDPOINT_URL=s3_url)
    assert (missing.code, "s3://nowhere/x" in missing.err, "Traceback" in missing.err) == (73, True, False)
    done = queue_eval("run", path, "--run-id", "r1", "--workers", "2", cwd=tmp_path, AWS_ENDPOINT_URL=s3_url)
    assert done.code == 0, done.err
    assert "report: s3://evaluations/nightly/r1/report.html" in done.out
    held = {row["Key"] for row in s3.list_objects_v2(Bucket="evaluations")["Contents"]}
    assert sum(key.startswith("nightly/r1/results/") for key in held) == 8
    asked = provider.admitted
    again = queue_eval(
        "run", "--resume", "r1", "--store", "s3://evaluations/nightly", cwd=tmp_path, AWS_ENDPOINT_URL=s3_url
    )
    assert (again.code, provider.admitted) == (0, asked)
    status = queue_eval("status", "r1", "--store", "s3://evaluations/nightly", cwd=tmp_path, AWS_ENDPOINT_URL=s3_url)
    assert status.code == 0, status.err


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1"])
def test_the_exit_code_does_not_depend_on_what_the_terminal_can_show(
    tmp_path: Path, provider: Provider, encoding: str
) -> None:
    write_cases(tmp_path, 2, tags=["忠実"])
    metrics = [{"type": "FaithfulnessMetric", "name": "忠実 ✓"}]
    gate = {"metrics": {"忠実 ✓": {"min_mean": 0.1}}}
    path = write_eval(tmp_path, provider.url, metrics=metrics, gate=gate)
    done = subprocess.run(
        [sys.executable, "-m", "queue_eval", "run", str(path), "--run-id", "r1"],
        cwd=tmp_path, env=environment(PYTHONIOENCODING=encoding, PYTHONUTF8="0", LC_ALL="C", PYTHONCOERCECLOCALE="0"), capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, b"verdict: pass" in done.stdout) == (0, True), done.stderr
    assert "忠実 ✓" in (tmp_path / "runs/r1/summary.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("streams", "code"),
    [("2>&-", 0), ("2>/dev/full", 0), (">&-", 0), (">&- 2>&-", 0), (">/dev/full", 74), (">/dev/full 2>/dev/full", 74)],
)
def test_a_verdict_does_not_depend_on_where_messages_go(tmp_path: Path, streams: str, code: int) -> None:
    """Messages that cannot be written are lost, and no more. A report that cannot be printed is no failed gate."""
    write_cases(tmp_path, 2)
    path = write_eval(tmp_path, "unused", judge={"type": "lexical"})
    done = subprocess.run(
        ["/bin/sh", "-c", f'"$0" -m queue_eval run "$1" --run-id r1 {streams}', sys.executable, str(path)],
        cwd=tmp_path, env=environment(), capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert report(tmp_path, "r1")["verdict"] == "pass"
    assert b"Traceback" not in done.stderr
