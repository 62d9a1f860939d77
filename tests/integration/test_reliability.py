"""The promises of docs/explanation/guarantees.md, each by the number of its invariant: real processes, servers, signals."""

import itertools
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import BusyLoadingError, RedisError

from queue_eval.core.errors import EXIT_INTERRUPTED
from queue_eval.queue.keys import RunKeys
from testkit.command import environment, python_path, queue_eval, report, started, write_cases, write_eval
from testkit.gate import Gate
from testkit.measured import ROOT
from testkit.provider.server import Provider
from testkit.provider.wire import Fault, always
from testkit.proxy import Proxy
from testkit.redis_server import Server
from testkit.template import Forked
from testkit.waiting import wait_until
from tests.integration.test_shared_redis import enqueued, results, where

LEASE_S = 1.5
WORKERS = {"processes": 1, "concurrency": 4, "lease_s": LEASE_S, "grace_s": 10}


def passes(seconds: float) -> Callable[[], bool]:
    """For wait_until: that much time."""
    until = time.monotonic() + seconds
    return lambda: time.monotonic() >= until


def finalized(tmp_path: Path, server: Server) -> dict[str, Any]:
    done = queue_eval("finalize", "r1", *where(server), cwd=tmp_path)
    assert done.code in (0, 1), done.err
    accounting: dict[str, Any] = report(tmp_path, "r1")["accounting"]
    return accounting


def ended(worker: Forked | subprocess.Popen[str], within_s: float = 90) -> str:
    """What it printed; it must have drained the run."""
    try:
        _, err = worker.communicate(timeout=within_s)
    finally:
        worker.kill()
    assert worker.returncode == 0, err
    assert "Traceback" not in err, err
    return err


def interrupted(worker: Forked) -> None:
    """It has to leave; it reports that the run is not drained."""
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=60)
    assert worker.returncode == EXIT_INTERRUPTED, err


def events(printed: str, name: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    return [event for event in found if event.get("event") == name]


def test_a_judge_that_repeats_the_prompt_gets_nothing_of_it_into_the_log(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    repeated = Fault(400, '{"error": "cannot take this: PROMPT-OF-A-CUSTOMER"}')
    provider.fault = lambda _n, body: repeated if "Item 3 " in str(body["messages"]) else None
    enqueued(tmp_path, provider, each_redis, 6, workers=WORKERS)
    printed = ended(started("worker", "r1", *where(each_redis), cwd=tmp_path))
    (dead,) = events(printed, "dead")
    record = json.loads((tmp_path / "runs" / "r1" / dead["record"]).read_text())
    assert "PROMPT-OF-A-CUSTOMER" in record["reason"]
    assert "PROMPT-OF-A-CUSTOMER" not in printed


def test_i02_i03_a_worker_that_was_stopped_past_its_lease_changes_nothing(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    provider.latency = always(0.3)
    enqueued(tmp_path, provider, each_redis, 12, workers=WORKERS)
    stopped = started("worker", "r1", *where(each_redis), cwd=tmp_path)
    wait_until(lambda: provider.requests >= 6, within_s=60)  # four cases are being judged
    stopped.send_signal(signal.SIGSTOP)
    try:
        ended(started("worker", "r1", *where(each_redis), cwd=tmp_path))
        stored = {path: path.read_bytes() for path in (tmp_path / "runs/r1/results").glob("*.json")}
    finally:
        stopped.send_signal(signal.SIGCONT)
    printed = ended(stopped)
    assert events(printed, "blocked")
    assert {path: path.read_bytes() for path in stored} == stored
    accounting = finalized(tmp_path, each_redis)
    assert (accounting["scored"], accounting["dead"], accounting["unrecorded_executions"]) == (12, 0, 0)
    assert accounting["judge_calls"] == provider.admitted
    assert accounting["executions"] > 12


# the last that an execution reports, and what makes it do so
LATE = {"finish": Fault(400, '{"error": "content_filter"}'), "release": Fault(503)}


@pytest.mark.parametrize("call", LATE)
def test_i02_i03_what_an_execution_reports_after_its_lease_changes_nothing(
    tmp_path: Path, provider: Provider, each_redis: Server, call: str
) -> None:
    metrics = [{"type": "FaithfulnessMetric"}]
    enqueued(tmp_path, provider, each_redis, 1, workers=WORKERS, metrics=metrics, gate={}, retry={"call_attempts": 1})
    failed: list[int] = []

    def ill(n: int, _body: dict[str, Any]) -> Fault | None:
        if failed:
            return None
        failed.append(n)
        return LATE[call]

    provider.fault = ill
    late = subprocess.Popen(
        [sys.executable, "-m", "testkit.signalled", "SIGSTOP", f"before {call}", "1", "worker", "r1", *where(each_redis)],
        cwd=tmp_path, env=environment(PYTHONPATH=python_path(ROOT)), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert os.WIFSTOPPED(os.waitpid(late.pid, os.WUNTRACED)[1])
        provider.latency = always(1.0)
        asked = provider.requests
        other = started("worker", "r1", *where(each_redis), cwd=tmp_path)
        wait_until(lambda: provider.requests > asked, within_s=60)  # it holds the case by now
        late.send_signal(signal.SIGCONT)
        ended(other)
        ended(late)
    finally:
        late.kill()
    accounting = finalized(tmp_path, each_redis)
    assert (accounting["scored"], accounting["dead"], accounting["executions"]) == (1, 0, 2)
    assert accounting["unrecorded_executions"] == 0
    assert accounting["judge_calls"] == provider.admitted


def test_i05_i11_death_between_any_two_steps_loses_nothing_and_counts_nothing_twice(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    # one case in flight at each death: none is in flight at three of them, which would end it
    enqueued(tmp_path, provider, each_redis, 40, workers={**WORKERS, "concurrency": 1})
    points = ["after claim", "before create", "after create", "before finish", "after finish"]
    for point in points:
        before = results(tmp_path)
        died = started("worker", "r1", *where(each_redis), cwd=tmp_path, arm=("SIGKILL", point, "2"))
        assert died.wait(60) == -signal.SIGKILL, (point, died.communicate())
        # what is done is in the store first
        assert Redis.from_url(each_redis.url).zcard("rq:finished:queue-eval-r1") <= results(tmp_path)
        assert results(tmp_path) >= before
    ended(started("worker", "r1", *where(each_redis), cwd=tmp_path))
    accounting = finalized(tmp_path, each_redis)
    assert (accounting["scored"], accounting["dead"], accounting["missing"]) == (40, 0, 0)
    unknown = accounting["unrecorded_executions"]
    assert unknown > 0
    calls_of_a_case = 7
    assert accounting["judge_calls"] <= provider.admitted <= accounting["judge_calls"] + unknown * calls_of_a_case


def test_i07_a_result_that_is_gone_makes_the_report_incomplete_and_the_gate_does_not_pass(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    write_cases(tmp_path, 6)
    # what is scored is enough for every other rule
    path = write_eval(
        tmp_path, provider.url, gate={"min_coverage": 0.3, "metrics": {"Faithfulness": {"min_mean": 0.1}}}
    )
    assert queue_eval("run", path, "--run-id", "r1", "--redis", each_redis.url, cwd=tmp_path).code == 0
    next((tmp_path / "runs/r1/results").iterdir()).unlink()
    done = queue_eval("finalize", "r1", "--no-wait", cwd=tmp_path)
    assert done.code == 2, done.out
    assert report(tmp_path, "r1")["accounting"]["missing"] == 1
    # a torn one is as good as none
    torn = next((tmp_path / "runs/r1/results").iterdir())
    torn.write_bytes(torn.read_bytes()[:40])
    assert queue_eval("finalize", "r1", "--no-wait", cwd=tmp_path).code == 2
    assert report(tmp_path, "r1")["accounting"]["missing"] == 2


def test_i13_i19_after_a_wipe_a_torn_result_is_judged_again(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    write_cases(tmp_path, 4)
    path = write_eval(tmp_path, provider.url)
    assert queue_eval("run", path, "--run-id", "r1", "--redis", each_redis.url, cwd=tmp_path).code == 0
    before = provider.admitted
    Redis.from_url(each_redis.url).flushall()
    # as a crash leaves them, on a good volume and on a bad one
    empty, half, *_ = (tmp_path / "runs/r1/results").iterdir()
    empty.write_bytes(b"")
    half.write_bytes(half.read_bytes()[:40])
    resumed = queue_eval("run", "--resume", "r1", "--redis", each_redis.url, cwd=tmp_path)
    assert resumed.code == 0, resumed.out
    accounting = report(tmp_path, "r1")["accounting"]
    assert (accounting["scored"], accounting["missing"]) == (4, 0)
    assert provider.admitted - before == 1 + 2 * 7  # whether the judge is there, and the two cases


def test_i09_two_producers_at_once_enqueue_every_case_once(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    write_cases(tmp_path, 600)
    path = write_eval(tmp_path, provider.url)
    both = [started("enqueue", path, "--run-id", "r1", *where(each_redis), cwd=tmp_path) for _ in range(2)]
    printed = [process.communicate(timeout=90) for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    counts = [int(re.findall(r"(\d+) enqueued", out)[0]) for out, _ in printed]
    assert sum(counts) == 600
    assert Redis.from_url(each_redis.url).llen("rq:queue:queue-eval-r1") == 600


def test_i10_replies_that_are_lost_cost_no_delivery(tmp_path: Path, provider: Provider, each_redis: Server) -> None:
    provider.latency = always(0.05)
    enqueued(tmp_path, provider, each_redis, 60, workers={**WORKERS, "lease_s": 12})
    proxy = Proxy(str(each_redis.folder / "redis.sock")).start()
    worker = started("worker", "r1", "--redis", proxy.url, "--store", "runs", cwd=tmp_path)
    try:
        for so_many in (4, 16, 30):
            wait_until(lambda least=so_many: results(tmp_path) >= least, within_s=60)  # type: ignore[misc]
            before = proxy.swallowed
            proxy.mode = "swallow replies"
            wait_until(lambda since=before: proxy.swallowed > since, within_s=30)  # type: ignore[misc]
            proxy.cut()
            proxy.mode = "pass"
        ended(worker)
    finally:
        worker.kill()
        proxy.close()
    accounting = finalized(tmp_path, each_redis)
    assert (accounting["scored"], accounting["executions"]) == (60, 60)
    assert accounting["judge_calls"] == provider.admitted


DEAD = "rq:failed:queue-eval-r1"


def buried_unheard(redis: "Redis", proxy: Proxy, provider: Provider) -> bool:
    """Whether a case was buried, and its worker did not get to know."""
    asked = provider.requests
    wait_until(lambda: provider.requests >= asked + 4, within_s=30)  # and none of them answered yet
    before = redis.zcard(DEAD)
    proxy.mode = "swallow replies"
    until = time.monotonic() + 2
    wait_until(lambda: redis.zcard(DEAD) > before or time.monotonic() >= until, within_s=5)
    wait_until(passes(0.5), within_s=5)
    buried = redis.zcard(DEAD) > before
    proxy.cut()
    proxy.mode = "pass"
    return bool(buried)


def test_i10_a_case_that_is_dead_stays_so_when_the_reply_to_that_is_lost(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    provider.latency = always(0.5)
    enqueued(tmp_path, provider, each_redis, 40, workers={**WORKERS, "lease_s": 12})
    provider.fault = lambda _n, _body: Fault(400, '{"error": "content_filter"}')
    redis, proxy = Redis.from_url(each_redis.url), Proxy(str(each_redis.folder / "redis.sock")).start()
    worker = started("worker", "r1", "--redis", proxy.url, "--store", "runs", cwd=tmp_path)
    try:
        wait_until(lambda: redis.zcard(DEAD) >= 4, within_s=60)
        # a heartbeat may be the one whose reply is lost: what comes after it is not sent then, and the next wave of calls will do
        assert any(buried_unheard(redis, proxy, provider) for _ in range(6))
        ended(worker)
    finally:
        worker.kill()
        proxy.close()
    assert queue_eval("finalize", "r1", *where(each_redis), cwd=tmp_path).code == 2
    accounting = report(tmp_path, "r1")["accounting"]
    assert (accounting["dead"], accounting["missing"], accounting["executions"]) == (40, 0, 40)


BLOCKING = """
import asyncio, pathlib, time
from deepeval.metrics import BaseMetric

class Blocking(BaseMetric):
    def __init__(self, threshold=0.5, model=None, async_mode=True):
        self.threshold = threshold
    async def a_measure(self, test_case, *args, **kwargs):
        first = pathlib.Path("blocked")
        if "item 3?" in test_case.input and not first.exists():
            first.touch()
            time.sleep(BLOCKED_S)
            await asyncio.sleep(3)
            pathlib.Path("went on").touch()
        self.score, self.success = 1.0, True
        return self.score
    def measure(self, *args, **kwargs):
        raise NotImplementedError
    def is_successful(self):
        return self.success
"""


def with_a_metric_that_blocks(tmp_path: Path, provider: Provider, *, for_s: int, workers: dict[str, Any]) -> Path:
    """An eval.yaml of eight cases, of which one blocks its worker's event loop, the first time it is scored."""
    (tmp_path / "blocking_metric.py").write_text(BLOCKING.replace("BLOCKED_S", str(for_s)))
    write_cases(tmp_path, 8)
    return write_eval(tmp_path, provider.url, metrics=[{"type": "blocking_metric:Blocking"}], gate={}, workers=workers)


def test_i16_a_blocked_event_loop_is_found_out_and_its_work_is_not_counted_twice(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    path = with_a_metric_that_blocks(tmp_path, provider, for_s=6, workers=WORKERS)
    done = queue_eval(
        "enqueue", path, "--run-id", "r1", *where(each_redis), cwd=tmp_path, PYTHONPATH=python_path(tmp_path)
    )
    assert done.code == 0, done.err
    workers = [
        started("worker", "r1", *where(each_redis), cwd=tmp_path, PYTHONPATH=python_path(tmp_path)) for _ in range(2)
    ]
    printed = [ended(worker) for worker in workers]
    assert sum(len(events(one, "blocked")) for one in printed) == 1
    assert sum(len(events(one, "lease_lost")) for one in printed) >= 1
    assert not (tmp_path / "went on").exists()
    assert finalized(tmp_path, each_redis)["scored"] == 8


def test_i16_an_event_loop_that_stands_still_for_good_ends_its_worker_and_not_the_run(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    path = with_a_metric_that_blocks(tmp_path, provider, for_s=240, workers={"lease_s": LEASE_S, "concurrency": 2, "blocked_s": 2})  # fmt: skip
    done = queue_eval("run", path, "--run-id", "r1", *where(each_redis), cwd=tmp_path, PYTHONPATH=python_path(tmp_path))
    assert done.code == 0, done.err
    first = (tmp_path / "runs/r1/logs/worker-1.log").read_text()
    assert len(events(first, "event_loop_stuck")) == 1
    accounting = finalized(tmp_path, each_redis)
    assert (accounting["scored"], accounting["dead"]) == (8, 0)
    assert accounting["executions"] > 8  # the one that never ended is counted


@pytest.mark.thorough
def test_i16_one_signal_ends_a_run_whose_worker_gets_none(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    path = with_a_metric_that_blocks(tmp_path, provider, for_s=240, workers={"lease_s": LEASE_S, "concurrency": 2, "grace_s": 1})  # fmt: skip
    run = started("run", path, "--run-id", "r1", *where(each_redis), cwd=tmp_path, PYTHONPATH=python_path(tmp_path))
    wait_until((tmp_path / "blocked").exists, within_s=60)
    run.send_signal(signal.SIGINT)
    _, printed = run.communicate(timeout=60)
    assert (run.returncode, "--resume r1" in printed) == (EXIT_INTERRUPTED, True), printed


# by default settings, and as long as wanted: QUEUE_LONG_CALL_S=600 pytest tests/integration/test_reliability.py -k i16_a_call
LONG_CALL_S = float(os.environ.get("QUEUE_LONG_CALL_S", "4"))


def test_i16_a_call_that_takes_many_leases_keeps_its_case(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    sections = {"metrics": [{"type": "AnswerRelevancyMetric"}], "retry": {"call_timeout_s": LONG_CALL_S + 60}}
    lease = {} if "QUEUE_LONG_CALL_S" in os.environ else {"lease_s": 1}
    enqueued(tmp_path, provider, each_redis, 4, workers={"processes": 1, "concurrency": 4, **lease}, **sections)
    waits = itertools.chain([LONG_CALL_S] * 4, itertools.repeat(0.1))  # the first call of each case
    provider.latency = lambda: next(waits)
    workers = [started("worker", "r1", *where(each_redis), cwd=tmp_path) for _ in range(2)]
    for worker in workers:
        ended(worker, within_s=90 + LONG_CALL_S)
    accounting = finalized(tmp_path, each_redis)
    assert (accounting["scored"], accounting["executions"]) == (4, 4)


def shut_out(server: Server) -> None:
    redis = Redis.from_url(server.url)
    redis.config_set("requirepass", "changed")
    redis.auth("changed")
    redis.client_kill_filter(_type="normal", skipme=True)


def read_slowly(server: Server) -> None:
    """Killed, and back with so much to read, so slowly, that it answers LOADING for many leases."""
    with Redis.from_url(server.url) as redis, redis.pipeline(transaction=False) as pipe:
        for number in range(40_000):
            pipe.set("filler", number)
        pipe.execute()
    server.kill()
    server.begin("--key-load-delay", "200")
    wait_until(lambda: is_loading(server), within_s=10)


def is_loading(server: Server) -> bool:
    try:
        with Redis.from_url(server.url) as redis:
            redis.ping()
    except BusyLoadingError:
        return True
    except RedisError:
        pass
    return False


def has_read(server: Server) -> None:
    assert is_loading(server)
    wait_until(server.answers, within_s=60)


def let_in(server: Server) -> None:
    Redis.from_url(server.url, password="changed").config_set("requirepass", "")


TROUBLES: dict[str, tuple[Callable[[Server], object], Callable[[Server], object]]] = {
    "killed": (Server.kill, Server.start),
    "out of memory": (
        lambda s: Redis.from_url(s.url).config_set("maxmemory", 1),
        lambda s: Redis.from_url(s.url).config_set("maxmemory", 0),
    ),
    "read only": (
        lambda s: Redis.from_url(s.url).replicaof("127.0.0.1", "1"),
        lambda s: Redis.from_url(s.url).replicaof("NO", "ONE"),
    ),
    "another password": (shut_out, let_in),
    "loading": (read_slowly, has_read),
}


@pytest.mark.thorough
def test_i17_redis_away_for_thirty_seconds_by_default_settings(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    provider.latency = always(0.1)
    enqueued(tmp_path, provider, each_redis, 60, workers={"concurrency": 4}, retry={"case_attempts": 1})
    pool = [started("worker", "r1", *where(each_redis), cwd=tmp_path) for _ in range(3)]
    redis = Redis.from_url(each_redis.url)
    wait_until(lambda: results(tmp_path) >= 9 and redis.hlen("qe:claimed:r1") == len(pool), within_s=60)
    provider.latency = always(3.0)  # no case ends by what the limiter allows without Redis
    each_redis.kill()
    wait_until(passes(30), within_s=40)
    done = results(tmp_path)
    provider.latency = always(0.1)
    pool[0].send_signal(signal.SIGSTOP)  # it comes back last
    try:
        each_redis.start()
        # the others find all leases ended, and take no worker for dead
        wait_until(lambda: results(tmp_path) >= done + 12, within_s=30)
    finally:
        pool[0].send_signal(signal.SIGCONT)
    for worker in pool:
        printed = ended(worker)
        assert len(events(printed, "unavailable")) == len(events(printed, "available")) == 1
    accounting = finalized(tmp_path, each_redis)
    assert (accounting["scored"], accounting["executions"], accounting["dead"]) == (60, 60, 0)
    assert accounting["judge_calls"] == provider.admitted


@pytest.mark.parametrize("trouble", TROUBLES)
def test_i17_trouble_with_redis_costs_time_and_no_delivery(
    tmp_path: Path, provider: Provider, each_redis: Server, trouble: str
) -> None:
    begin, end = TROUBLES[trouble]
    provider.latency = always(0.1)
    enqueued(tmp_path, provider, each_redis, 24, workers=WORKERS, retry={"case_attempts": 1})
    worker = started("worker", "r1", *where(each_redis), cwd=tmp_path)
    wait_until(lambda: results(tmp_path) >= 3, within_s=60)
    begin(each_redis)
    wait_until(passes(4 * LEASE_S), within_s=30)
    end(each_redis)
    printed = ended(worker)
    assert len(events(printed, "unavailable")) == len(events(printed, "available")) == 1
    accounting = finalized(tmp_path, each_redis)
    assert (accounting["scored"], accounting["executions"], accounting["dead"]) == (24, 24, 0)
    assert accounting["judge_calls"] == provider.admitted


def test_i17_a_store_that_is_away_costs_time_and_no_delivery(
    tmp_path: Path, provider: Provider, each_redis: Server, s3_url: str
) -> None:
    with behind_a_gate(tmp_path, provider, each_redis, s3_url) as (gate, worker):
        gate.closed = True
        wait_until(lambda: gate.turned_away >= 3, within_s=30)
        gate.closed = False
        printed = ended(worker)
        # once for all concurrent requests; a request that failed before the store came back may be reported after it
        assert 1 <= len(events(printed, "unavailable")) == len(events(printed, "available")) <= 2
        assert "503" in events(printed, "unavailable")[0]["reason"]
        redis = Redis.from_url(each_redis.url)
        assert redis.hmget("qe:run:r1", "scored", "executions", "state") == [b"12", b"12", b"DRAINED"]
        assert gate.stored("results/") == 12


def test_i17_a_store_that_is_slower_than_a_lease_costs_time_and_no_delivery(
    tmp_path: Path, provider: Provider, each_redis: Server, s3_url: str
) -> None:
    with behind_a_gate(tmp_path, provider, each_redis, s3_url) as (gate, worker):
        gate.late_s = 2 * LEASE_S
        printed = ended(worker)
        assert events(printed, "lease_lost") == events(printed, "unavailable") == []
        redis = Redis.from_url(each_redis.url)
        assert redis.hmget("qe:run:r1", "scored", "executions", "state") == [b"12", b"12", b"DRAINED"]
        assert gate.stored("results/") == 12


@contextmanager
def behind_a_gate(tmp_path: Path, provider: Provider, redis: Server, s3_url: str) -> "Iterator[tuple[Gate, Forked]]":
    """A run of 12 cases, begun by one worker whose store is a bucket behind a gate."""
    import boto3

    bucket = f"gate-{secrets.token_hex(4)}"
    boto3.client("s3", endpoint_url=s3_url).create_bucket(Bucket=bucket)
    gate = Gate(s3_url).start()
    try:
        write_cases(tmp_path, 12)
        path = write_eval(tmp_path, provider.url, workers=WORKERS)
        place = ("--redis", redis.url, "--store", f"s3://{bucket}/runs")
        assert queue_eval("enqueue", path, "--run-id", "r1", *place, cwd=tmp_path, AWS_ENDPOINT_URL=gate.url).code == 0
        allowed = {"QUEUE_EVAL_ALLOWED_JUDGES": provider.url, "QUEUE_EVAL_ALLOWED_SECRETS": "JUDGE_API_KEY"}
        worker = started("worker", "r1", *place, cwd=tmp_path, arm=(), AWS_ENDPOINT_URL=gate.url, **allowed)
        wait_until(lambda: gate.stored("results/") >= 2, within_s=60)
        yield gate, worker
    finally:
        gate.close()


@pytest.mark.thorough
def test_i18_a_worker_that_must_leave_while_redis_is_away_reports_that_it_did_not_finish(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    provider.latency = always(0.1)
    enqueued(tmp_path, provider, each_redis, 24, workers={**WORKERS, "grace_s": 1})
    worker = started("worker", "r1", *where(each_redis), cwd=tmp_path)
    wait_until(lambda: results(tmp_path) >= 1, within_s=60)
    each_redis.kill()
    wait_until(passes(4), within_s=10)  # it waits for Redis by now
    interrupted(worker)
    each_redis.start()
    ended(started("worker", "r1", *where(each_redis), cwd=tmp_path))
    assert finalized(tmp_path, each_redis)["scored"] == 24


def test_i05_i18_what_a_case_that_is_given_back_has_spent_is_counted(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    provider.latency = always(0.4)
    enqueued(tmp_path, provider, each_redis, 8, workers={**WORKERS, "grace_s": 0.1})
    worker = started("worker", "r1", *where(each_redis), cwd=tmp_path)
    wait_until(lambda: provider.admitted >= 10, within_s=60)  # in the middle of four cases
    interrupted(worker)
    assert results(tmp_path) == 0
    ended(started("worker", "r1", *where(each_redis), cwd=tmp_path))
    accounting = finalized(tmp_path, each_redis)
    assert (accounting["scored"], accounting["executions"], accounting["unrecorded_executions"]) == (8, 12, 0)
    assert accounting["judge_calls"] >= provider.admitted > 8 * 7


def test_i22_what_failed_for_a_while_is_tried_again_and_the_run_ends(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    failed: list[int] = []

    def ill(n: int, body: dict[str, Any]) -> Fault | None:
        if "item 3?" not in json.dumps(body).lower() or len(failed) == 6:
            return None
        failed.append(n)
        return Fault(503)

    provider.fault = ill
    retry = {"call_attempts": 1, "base_delay_s": 0.05, "max_delay_s": 0.5, "case_attempts": 10}
    enqueued(tmp_path, provider, each_redis, 12, workers=WORKERS, retry=retry)
    printed = ended(started("worker", "r1", *where(each_redis), cwd=tmp_path), within_s=40)
    assert not events(printed, "dead")
    accounting = finalized(tmp_path, each_redis)
    assert (accounting["scored"], accounting["missing"]) == (12, 0)
    assert accounting["executions"] > 12


def test_i21_a_straggler_is_dispatched_twice_and_paid_for_once_more_but_counted_once(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    hung: list[float] = []
    provider.fault = hangs(hung, 60, 6)
    workers = {**WORKERS, "straggler_least_s": 2, "straggler_times": 3}
    sections = {"retry": {"call_timeout_s": 90}, "limits": {"requests_per_minute": 6000}}
    enqueued(tmp_path, provider, each_redis, 8, workers=workers, **sections)
    began = time.monotonic()
    pool = [started("worker", "r1", *where(each_redis), cwd=tmp_path) for _ in range(3)]
    for worker in pool:
        ended(worker, within_s=55)
    assert time.monotonic() - began < 55
    assert len(hung) == 2
    accounting = finalized(tmp_path, each_redis)
    # twice, though the second took long as well and there was a third worker with nothing to do
    assert (accounting["scored"], accounting["executions"], accounting["unrecorded_executions"]) == (8, 9, 0)
    # the call that hung was on its way when it was given up: it is in our books, and the provider never answered it
    assert accounting["judge_calls"] == provider.admitted + 1
    # and every call of either execution was one that the limiter let go
    assert report(tmp_path, "r1")["limiter"]["released_for_this_run"] == accounting["judge_calls"]


@pytest.mark.thorough
def test_i21_the_death_of_one_execution_leaves_a_straggler_to_the_other(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    hung: list[float] = []
    provider.fault = hangs(hung, 60, 8)
    workers = {**WORKERS, "concurrency": 8, "straggler_least_s": 2, "straggler_times": 3}
    enqueued(tmp_path, provider, each_redis, 8, workers=workers, retry={"call_timeout_s": 90})
    first = started("worker", "r1", *where(each_redis), cwd=tmp_path)
    wait_until(lambda: len(hung) == 1 and results(tmp_path) == 7, within_s=60)
    second = started("worker", "r1", *where(each_redis), cwd=tmp_path)
    wait_until(lambda: len(hung) == 2, within_s=60)
    first.kill()
    first.communicate()
    ended(second, within_s=40)
    accounting = finalized(tmp_path, each_redis)
    assert (accounting["scored"], accounting["executions"], accounting["unrecorded_executions"]) == (8, 9, 1)


def hangs(hung: list[float], *seconds: float) -> Callable[[int, dict[str, Any]], Fault | None]:
    """One call about the third case hangs so long, and later one of another execution: an execution's first calls are made at once."""

    def fault(_n: int, body: dict[str, Any]) -> Fault | None:
        now = time.monotonic()
        if "item 3?" not in json.dumps(body).lower() or len(hung) == len(seconds) or (hung and now < hung[-1] + 1.5):
            return None
        hung.append(now)
        return Fault(hang_s=seconds[len(hung) - 1])

    return fault


def test_a_killed_workers_cases_are_leased_again_within_15_seconds_by_default(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    provider.latency = always(0.5)
    enqueued(tmp_path, provider, each_redis, 400, workers={"concurrency": 8})
    doomed, other = (started("worker", "r1", *where(each_redis), cwd=tmp_path) for _ in range(2))
    try:
        redis = Redis.from_url(each_redis.url, decode_responses=True)
        wait_until(lambda: redis.zcard("qe:leases:r1") == 16, within_s=60)
        doomed.kill()
        killed_at = time.monotonic()
        again: set[str] = set()

        def leased_again() -> int:
            leases = (str(lease).split(":") for lease in redis.zrange("qe:leases:r1", 0, -1))
            again.update(case_id for case_id, execution in leases if execution.split("-")[1] == "2")
            return len(again)

        wait_until(lambda: leased_again() >= 8, within_s=30)
        assert time.monotonic() - killed_at <= 15
    finally:
        for worker in (doomed, other):
            worker.kill()
            worker.communicate()


def test_i01_i06_i22_every_case_is_somewhere_and_drained_means_all_while_workers_are_killed(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    provider.latency = always(0.1)
    enqueued(tmp_path, provider, each_redis, 60, workers=WORKERS)
    keys, redis = RunKeys("r1"), Redis.from_url(each_redis.url)
    pool = [started("worker", "r1", *where(each_redis), cwd=tmp_path) for _ in range(2)]
    states: set[bytes] = set()
    try:
        for killed in range(4):
            done = results(tmp_path)
            wait_until(lambda done=done: results(tmp_path) > done + 4 or looked(redis, keys, states), within_s=60)  # type: ignore[misc]
            pool[killed % 2].kill()
            pool[killed % 2].communicate()
            pool[killed % 2] = started("worker", "r1", *where(each_redis), cwd=tmp_path)
        # the last one ends seconds after the others: a worker that calls the run drained before it does is seen.
        # Not while workers are killed: so slow a case might lose three, and be dead
        provider.fault = lambda _n, body: Fault(hang_s=1.0) if "item 59?" in json.dumps(body).lower() else None
        began = time.monotonic()
        wait_until(lambda: looked(redis, keys, states) or b"DRAINED" in states, within_s=60)
        assert time.monotonic() - began < 60
        for worker in pool:
            ended(worker)
    finally:
        for worker in pool:
            worker.kill()
            worker.communicate()
    assert states == {b"SEALED", b"DRAINED"}
    accounting = finalized(tmp_path, each_redis)
    assert (accounting["scored"] + accounting["dead"], accounting["missing"]) == (60, 0)
    # a case that was in flight at three of the four deaths is dead, which is promised too
    rows = map(json.loads, (tmp_path / "runs/r1/results.jsonl").read_text().splitlines())
    assert {row["reason"] for row in rows if row["status"] == "dead"} <= {"3 workers died with it or lost it"}
    assert accounting["dead"] <= WORKERS["concurrency"]


def looked(redis: "Redis", keys: RunKeys, states: set[bytes]) -> bool:
    """One consistent look; always False, for wait_until."""
    with redis.pipeline(transaction=True) as pipe:
        pipe.hmget(keys.run, "state", "total", "scored", "dead")
        for length in (keys.ready, keys.quarantined):
            pipe.llen(length)
        for count in (keys.delayed, keys.leases):
            pipe.zcard(count)
        (state, total, scored, dead), *waiting = pipe.execute()
    states.add(state)
    assert int(scored) + int(dead) + sum(waiting) == int(total)
    assert (state == b"DRAINED") == (int(scored) + int(dead) == int(total))
    return False


CREATES = """
import asyncio, random, sys, time
from pathlib import Path
from queue_eval.retry_while_unavailable import RetryWhileUnavailable
from queue_eval.store.directory import DirectoryStore
from queue_eval.store.retrying import RetryingStore

async def main():
    patience = RetryWhileUnavailable(sleep=asyncio.sleep, chance=random.random, now=time.time)
    store, me = RetryingStore(DirectoryStore(Path(sys.argv[1])), patience), sys.argv[2].encode()
    print(sum([await store.create(f"results/{n}.json", me) for n in range(int(sys.argv[3]))]))

asyncio.run(main())
"""


def creator(script: str, folder: Path, name: str, objects: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", script, str(folder), name, str(objects)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())


def test_i12_i13_of_many_processes_exactly_one_creates_each_object_over_torn_ones_too(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    for n in range(0, 60, 2):
        (tmp_path / "results" / f"{n}.json").touch()  # what a power loss left
    pool = [creator(CREATES, tmp_path, f"p{n}", 60) for n in range(4)]
    won = [int(process.communicate(timeout=60)[0]) for process in pool]
    assert sum(won) == 60
    written = [(tmp_path / "results" / f"{n}.json").read_text() for n in range(60)]
    assert [written.count(f"p{n}") for n in range(4)] == won


STOPS_OVER_A_TORN_FILE = """
import signal, threading
from queue_eval.store import publish_once

replacing = publish_once._alone
def stops(torn):
    # to this very thread: one that is meant for the process may reach another first, and this one would go on for a moment
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
    return replacing(torn)
publish_once._alone = stops
"""


def test_i12_i13_a_process_that_was_stopped_over_a_torn_file_does_not_replace_what_another_created(
    tmp_path: Path,
) -> None:
    torn = tmp_path / "results/0.json"
    torn.parent.mkdir()
    torn.touch()
    slow = creator(STOPS_OVER_A_TORN_FILE + CREATES, tmp_path, "slow", 1)
    try:
        assert os.WIFSTOPPED(os.waitpid(slow.pid, os.WUNTRACED)[1])  # it has seen that the file is torn
        assert creator(CREATES, tmp_path, "fast", 1).communicate(timeout=60)[0] == "1\n"
        slow.send_signal(signal.SIGCONT)
        assert slow.communicate(timeout=60)[0] == "0\n"
    finally:
        slow.kill()
    assert torn.read_text() == "fast"


def test_i08_workers_whose_clocks_are_an_hour_wrong_share_a_run(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    provider.latency = always(0.1)
    enqueued(tmp_path, provider, each_redis, 30, workers=WORKERS)
    (tmp_path / "sitecustomize.py").write_text(WRONG_CLOCK)
    pool = [
        started("worker", "r1", *where(each_redis), cwd=tmp_path, PYTHONPATH=python_path(tmp_path), WRONG_BY_S=by)
        for by in ("-3600", "3600")
    ]
    for worker in pool:
        ended(worker)
    accounting = finalized(tmp_path, each_redis)
    assert (accounting["scored"], accounting["executions"]) == (30, 30)


WRONG_CLOCK = """
import os, time
right = time.time
time.time = lambda: right() + float(os.environ.get("WRONG_BY_S", "0"))
"""


def test_i14_two_finalizers_at_once_write_the_same_bytes(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    enqueued(tmp_path, provider, each_redis, 20, workers=WORKERS)
    assert queue_eval("finalize", "r1", "--no-wait", cwd=tmp_path).code == 2  # too early, and to be replaced
    ended(started("worker", "r1", *where(each_redis), cwd=tmp_path))
    both = [started("finalize", "r1", *where(each_redis), cwd=tmp_path) for _ in range(2)]
    for one in both:
        out, err = one.communicate(timeout=60)
        assert one.returncode == 0, out + err
    assert report(tmp_path, "r1")["accounting"]["scored"] == 20
    first = {path.name: path.read_bytes() for path in (tmp_path / "runs/r1").iterdir() if path.is_file()}
    assert queue_eval("finalize", "r1", "--no-wait", cwd=tmp_path).code == 0
    assert {name: (tmp_path / "runs/r1" / name).read_bytes() for name in first} == first


def test_i20_a_worker_from_before_a_wipe_holds_nothing_afterwards(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    provider.latency = always(0.3)
    enqueued(tmp_path, provider, each_redis, 12, workers=WORKERS)
    stopped = started("worker", "r1", *where(each_redis), cwd=tmp_path)
    wait_until(lambda: provider.requests >= 6, within_s=60)
    stopped.send_signal(signal.SIGSTOP)
    try:
        Redis.from_url(each_redis.url).flushall()
        again = queue_eval("enqueue", "eval.yaml", "--run-id", "r1", *where(each_redis), cwd=tmp_path)
        assert again.code == 0, again.err
        held = started("worker", "r1", *where(each_redis), cwd=tmp_path)
        wait_until(lambda: Redis.from_url(each_redis.url).zcard("qe:leases:r1") > 0, within_s=60)
    finally:
        stopped.send_signal(signal.SIGCONT)
    ended(held)
    ended(stopped)
    accounting = finalized(tmp_path, each_redis)
    assert (accounting["scored"], accounting["missing"]) == (12, 0)
    assert accounting["judge_calls"] == provider.admitted


def test_i05_i19_redis_that_comes_back_with_older_data_costs_judge_calls_and_every_one_is_counted(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    """As after a power loss, or with a replica that was behind: all that the worker claimed and ended is forgotten."""
    enqueued(tmp_path, provider, each_redis, 4, workers=WORKERS)
    each_redis.kill()
    shutil.copytree(each_redis.folder, tmp_path / "older", ignore=shutil.ignore_patterns("*.sock"))
    each_redis.start()
    ended(started("worker", "r1", *where(each_redis), cwd=tmp_path))
    stored = {path: path.read_bytes() for path in (tmp_path / "runs/r1/results").glob("*.json")}
    each_redis.kill()
    shutil.copytree(tmp_path / "older", each_redis.folder, dirs_exist_ok=True)
    each_redis.start()
    ended(started("worker", "r1", *where(each_redis), cwd=tmp_path))
    assert {path: path.read_bytes() for path in stored} == stored
    accounting = finalized(tmp_path, each_redis)
    assert (accounting["scored"], accounting["missing"], accounting["unrecorded_executions"]) == (4, 0, 0)
    assert accounting["judge_calls"] == provider.admitted > 4 * 7


def test_cases_that_redis_has_lost_one_by_one_are_brought_back_by_the_follower_of_the_run(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    enqueued(tmp_path, provider, each_redis, 8, workers=WORKERS)
    redis = Redis.from_url(each_redis.url)
    (lost, *_) = redis.keys("rq:job:queue-eval-r1_*")
    redis.delete(lost)
    follower = started("finalize", "r1", *where(each_redis), "--status-interval", "1", cwd=tmp_path)
    try:
        ended(started("worker", "r1", *where(each_redis), cwd=tmp_path))
        out, err = follower.communicate(timeout=60)
    finally:
        follower.kill()
        follower.wait()
    assert follower.returncode == 0, out + err
    assert report(tmp_path, "r1")["accounting"]["scored"] == 8
