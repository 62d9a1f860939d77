"""The promises of docs/guarantees.md, each by the number of its invariant: real processes, servers, signals."""

import json
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from loadtest.chaos.proxy import Proxy
from loadtest.measured import ROOT
from loadtest.provider.server import Provider
from loadtest.provider.wire import Fault, always
from loadtest.redis_server import Server
from loadtest.waiting import wait_until
from queue_eval.core.errors import EXIT_INTERRUPTED
from queue_eval.queue.keys import RunKeys
from tests.integration.test_shared_redis import enqueued, results, where
from tests.support.command import environment, python_path, queue_eval, report, started, write_cases, write_eval

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


def ended(worker: "subprocess.Popen[str]", within_s: float = 90) -> str:
    """What it said; it must have drained the run."""
    try:
        _, err = worker.communicate(timeout=within_s)
    finally:
        worker.kill()
    assert worker.returncode == 0, err
    assert "Traceback" not in err, err
    return err


def events(said: str, name: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return [event for event in found if event.get("event") == name]


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
    said = ended(stopped)
    assert events(said, "blocked")
    assert {path: path.read_bytes() for path in stored} == stored
    accounting = finalized(tmp_path, each_redis)
    assert (accounting["scored"], accounting["dead"], accounting["unrecorded_executions"]) == (12, 0, 0)
    assert accounting["judge_calls"] == provider.admitted
    assert accounting["executions"] > 12


def test_i05_i11_death_between_any_two_steps_loses_nothing_and_counts_nothing_twice(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    enqueued(tmp_path, provider, each_redis, 20, workers={**WORKERS, "concurrency": 2})
    points = ["after claim", "before create", "after create", "before finish", "after finish"]
    for point in points:
        before = results(tmp_path)
        died = subprocess.run(
            [sys.executable, "-m", "tests.support.dying", point, "2", "worker", "r1", *where(each_redis)],
            cwd=tmp_path, env=environment(PYTHONPATH=python_path(ROOT)), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert died.returncode == -signal.SIGKILL, died.stderr
        # what is done is in the store first
        assert Redis.from_url(each_redis.url).zcard("rq:finished:queue-eval-r1") <= results(tmp_path)
        assert results(tmp_path) >= before
    ended(started("worker", "r1", *where(each_redis), cwd=tmp_path))
    accounting = finalized(tmp_path, each_redis)
    assert (accounting["scored"], accounting["dead"], accounting["missing"]) == (20, 0, 0)
    unknown = accounting["unrecorded_executions"]
    assert unknown > 0
    calls_of_a_case = 7
    assert accounting["judge_calls"] <= provider.admitted <= accounting["judge_calls"] + unknown * calls_of_a_case


def test_i07_a_result_that_is_gone_makes_the_report_incomplete_and_the_gate_does_not_pass(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    write_cases(tmp_path, 6)
    path = write_eval(tmp_path, provider.url)
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
    next((tmp_path / "runs/r1/results").iterdir()).write_bytes(b"")  # as a crash leaves it
    resumed = queue_eval("run", "--resume", "r1", "--redis", each_redis.url, cwd=tmp_path)
    assert resumed.code == 0, resumed.out
    accounting = report(tmp_path, "r1")["accounting"]
    assert (accounting["scored"], accounting["missing"]) == (4, 0)
    assert provider.admitted - before == 1 + 7  # whether the judge is there, and the one case


def test_i09_two_producers_at_once_enqueue_every_case_once(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    write_cases(tmp_path, 600)
    path = write_eval(tmp_path, provider.url)
    both = [started("enqueue", path, "--run-id", "r1", *where(each_redis), cwd=tmp_path) for _ in range(2)]
    said = [process.communicate(timeout=90) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    counts = [int(re.findall(r"(\d+) enqueued", out)[0]) for out, _ in said]
    assert sum(counts) == 600
    assert Redis.from_url(each_redis.url).llen("rq:queue:queue-eval-r1") == 600


def test_i10_replies_that_are_lost_cost_no_delivery(tmp_path: Path, provider: Provider, each_redis: Server) -> None:
    provider.latency = always(0.05)
    enqueued(tmp_path, provider, each_redis, 60, workers={**WORKERS, "lease_s": 12})
    proxy = Proxy(str(each_redis.folder / "redis.sock")).start()
    try:
        worker = started("worker", "r1", "--redis", proxy.url, "--store", "runs", cwd=tmp_path)
        for so_many in (4, 16, 30):
            wait_until(lambda least=so_many: results(tmp_path) >= least, within_s=60)  # type: ignore[misc]
            before = proxy.swallowed
            proxy.mode = "swallow replies"
            wait_until(lambda since=before: proxy.swallowed > since, within_s=30)  # type: ignore[misc]
            proxy.cut()
            proxy.mode = "pass"
        ended(worker)
    finally:
        proxy.close()
    accounting = finalized(tmp_path, each_redis)
    assert (accounting["scored"], accounting["executions"]) == (60, 60)
    assert accounting["judge_calls"] == provider.admitted


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
            time.sleep(6)
            await asyncio.sleep(3)
            pathlib.Path("went on").touch()
        self.score, self.success = 1.0, True
        return self.score
    def measure(self, *args, **kwargs):
        raise NotImplementedError
    def is_successful(self):
        return self.success
"""


def test_i16_a_blocked_event_loop_is_found_out_and_its_work_is_not_counted_twice(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    (tmp_path / "blocking_metric.py").write_text(BLOCKING)
    write_cases(tmp_path, 8)
    path = write_eval(tmp_path, provider.url, metrics=[{"type": "blocking_metric:Blocking"}], gate={}, workers=WORKERS)
    done = queue_eval(
        "enqueue", path, "--run-id", "r1", *where(each_redis), cwd=tmp_path, PYTHONPATH=python_path(tmp_path)
    )
    assert done.code == 0, done.err
    workers = [
        started("worker", "r1", *where(each_redis), cwd=tmp_path, PYTHONPATH=python_path(tmp_path)) for _ in range(2)
    ]
    said = [ended(worker) for worker in workers]
    assert sum(len(events(one, "blocked")) for one in said) == 1
    assert sum(len(events(one, "lost")) for one in said) >= 1
    assert not (tmp_path / "went on").exists()
    assert finalized(tmp_path, each_redis)["scored"] == 8


def test_i16_a_call_that_takes_many_leases_keeps_its_case(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    provider.latency = always(4.0)
    sections = {"metrics": [{"type": "AnswerRelevancyMetric"}], "retry": {"call_timeout_s": 60}}
    enqueued(tmp_path, provider, each_redis, 4, workers={**WORKERS, "lease_s": 1}, **sections)
    workers = [started("worker", "r1", *where(each_redis), cwd=tmp_path) for _ in range(2)]
    for worker in workers:
        ended(worker)
    accounting = finalized(tmp_path, each_redis)
    assert (accounting["scored"], accounting["executions"]) == (4, 4)


def shut_out(server: Server) -> None:
    redis = Redis.from_url(server.url)
    redis.config_set("requirepass", "changed")
    redis.auth("changed")
    redis.client_kill_filter(_type="normal", skipme=True)


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
}


def test_i17_redis_away_for_thirty_seconds_by_default_settings(
    tmp_path: Path, provider: Provider, own_redis: Server
) -> None:
    provider.latency = always(0.1)
    enqueued(tmp_path, provider, own_redis, 24, workers={"concurrency": 4}, retry={"case_attempts": 1})
    worker = started("worker", "r1", *where(own_redis), cwd=tmp_path)
    wait_until(lambda: results(tmp_path) >= 3, within_s=60)
    own_redis.kill()
    wait_until(passes(30), within_s=40)
    own_redis.start()
    said = ended(worker)
    assert len(events(said, "unavailable")) == len(events(said, "available")) == 1
    accounting = finalized(tmp_path, own_redis)
    assert (accounting["scored"], accounting["executions"], accounting["dead"]) == (24, 24, 0)
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
    said = ended(worker)
    assert len(events(said, "unavailable")) == len(events(said, "available")) == 1
    accounting = finalized(tmp_path, each_redis)
    assert (accounting["scored"], accounting["executions"], accounting["dead"]) == (24, 24, 0)
    assert accounting["judge_calls"] == provider.admitted


def test_i17_a_store_that_is_away_costs_time_and_no_delivery(
    tmp_path: Path, provider: Provider, each_redis: Server, s3_url: str
) -> None:
    import boto3

    from loadtest.chaos.gate import Gate

    bucket = f"away-{secrets.token_hex(4)}"
    boto3.client("s3", endpoint_url=s3_url).create_bucket(Bucket=bucket)
    gate = Gate(s3_url).start()
    try:
        write_cases(tmp_path, 12)
        path = write_eval(tmp_path, provider.url, workers=WORKERS)
        place = ("--redis", each_redis.url, "--store", f"s3://{bucket}/runs")
        assert queue_eval("enqueue", path, "--run-id", "r1", *place, cwd=tmp_path, AWS_ENDPOINT_URL=gate.url).code == 0
        worker = started("worker", "r1", *place, cwd=tmp_path, AWS_ENDPOINT_URL=gate.url)
        wait_until(lambda: gate.stored("results/") >= 2, within_s=60)
        gate.closed = True
        wait_until(lambda: gate.turned_away >= 3, within_s=30)
        gate.closed = False
        said = ended(worker)
        assert len(events(said, "unavailable")) == len(events(said, "available")) == 1
        assert "503" in events(said, "unavailable")[0]["reason"]
        redis = Redis.from_url(each_redis.url)
        assert redis.hmget("qe:run:r1", "scored", "executions", "state") == [b"12", b"12", b"DRAINED"]
        assert gate.stored("results/") == 12
    finally:
        gate.close()


def test_i18_a_worker_that_must_leave_while_redis_is_away_says_that_it_did_not_finish(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    provider.latency = always(0.1)
    enqueued(tmp_path, provider, each_redis, 24, workers={**WORKERS, "grace_s": 1})
    worker = started("worker", "r1", *where(each_redis), cwd=tmp_path)
    wait_until(lambda: results(tmp_path) >= 1, within_s=60)
    each_redis.kill()
    wait_until(passes(4), within_s=10)  # it waits for Redis by now
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=60)
    assert worker.returncode == EXIT_INTERRUPTED, err
    each_redis.start()
    ended(started("worker", "r1", *where(each_redis), cwd=tmp_path))
    assert finalized(tmp_path, each_redis)["scored"] == 24


def test_i21_a_straggler_is_dispatched_twice_and_paid_for_once_more_but_counted_once(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    hung: list[int] = []

    def hang(n: int, body: dict[str, Any]) -> Fault | None:
        if "item 3" in json.dumps(body).lower() and not hung:
            hung.append(n)
            return Fault(hang_s=60)
        return None

    provider.fault = hang
    workers = {**WORKERS, "straggler_least_s": 2, "straggler_times": 3}
    enqueued(tmp_path, provider, each_redis, 8, workers=workers, retry={"call_timeout_s": 90})
    began = time.monotonic()
    both = [started("worker", "r1", *where(each_redis), cwd=tmp_path) for _ in range(2)]
    for worker in both:
        ended(worker, within_s=55)
    assert time.monotonic() - began < 55
    accounting = finalized(tmp_path, each_redis)
    assert (accounting["scored"], accounting["executions"], accounting["unrecorded_executions"]) == (8, 9, 0)
    # the call that hung was on its way when it was given up: it is in our books, and the provider never answered it
    assert accounting["judge_calls"] == provider.admitted + 1


def test_a_killed_workers_cases_are_leased_again_within_15_seconds_by_default(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    provider.latency = always(0.5)
    enqueued(tmp_path, provider, each_redis, 400, workers={"concurrency": 8})
    doomed, other = (started("worker", "r1", *where(each_redis), cwd=tmp_path) for _ in range(2))
    try:
        redis = Redis.from_url(each_redis.url)
        wait_until(lambda: redis.zcard("qe:leases:r1") == 16, within_s=60)
        doomed.kill()
        killed_at = time.monotonic()
        wait_until(lambda: int(redis.hget("qe:run:r1", "reaped") or 0) >= 8, within_s=30)
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
    crew = [started("worker", "r1", *where(each_redis), cwd=tmp_path) for _ in range(2)]
    states: set[bytes] = set()
    try:
        for killed in range(4):
            done = results(tmp_path)
            wait_until(lambda done=done: results(tmp_path) > done + 4 or looked(redis, keys, states), within_s=60)  # type: ignore[misc]
            crew[killed % 2].kill()
            crew[killed % 2].communicate()
            crew[killed % 2] = started("worker", "r1", *where(each_redis), cwd=tmp_path)
        began = time.monotonic()
        wait_until(lambda: looked(redis, keys, states) or b"DRAINED" in states, within_s=60)
        assert time.monotonic() - began < 60
        for worker in crew:
            ended(worker)
    finally:
        for worker in crew:
            worker.kill()
            worker.communicate()
    assert states == {b"SEALED", b"DRAINED"}
    assert finalized(tmp_path, each_redis)["scored"] == 60


def looked(redis: "Redis", keys: RunKeys, states: set[bytes]) -> bool:
    """One consistent look; always False, for wait_until."""
    with redis.pipeline(transaction=True) as pipe:
        pipe.hmget(keys.run, "state", "total", "scored", "dead")
        for length in (keys.ready, keys.suspects):
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
from queue_eval.patience import Patience
from queue_eval.store.directory import DirectoryStore
from queue_eval.store.patient import PatientStore

async def main():
    patience = Patience(sleep=asyncio.sleep, chance=random.random, now=time.time)
    store, me = PatientStore(DirectoryStore(Path(sys.argv[1])), patience), sys.argv[2].encode()
    print(sum([await store.create(f"results/{n}.json", me) for n in range(60)]))

asyncio.run(main())
"""


def test_i12_i13_of_many_processes_exactly_one_creates_each_object_over_torn_ones_too(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    for n in range(0, 60, 2):
        (tmp_path / "results" / f"{n}.json").touch()  # what a power loss left
    crew = [
        subprocess.Popen([sys.executable, "-c", CREATES, str(tmp_path), f"p{n}"], stdout=subprocess.PIPE, text=True, env=environment())
        for n in range(4)
    ]  # fmt: skip
    won = [int(process.communicate(timeout=60)[0]) for process in crew]
    assert sum(won) == 60
    written = [(tmp_path / "results" / f"{n}.json").read_text() for n in range(60)]
    assert [written.count(f"p{n}") for n in range(4)] == won


def test_i08_workers_whose_clocks_are_an_hour_wrong_share_a_run(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    provider.latency = always(0.1)
    enqueued(tmp_path, provider, each_redis, 30, workers=WORKERS)
    (tmp_path / "sitecustomize.py").write_text(WRONG_CLOCK)
    crew = [
        started("worker", "r1", *where(each_redis), cwd=tmp_path, PYTHONPATH=python_path(tmp_path), WRONG_BY_S=by)
        for by in ("-3600", "3600")
    ]
    for worker in crew:
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
    ended(started("worker", "r1", *where(each_redis), cwd=tmp_path))
    both = [started("finalize", "r1", *where(each_redis), cwd=tmp_path) for _ in range(2)]
    for one in both:
        out, err = one.communicate(timeout=60)
        assert one.returncode == 0, out + err
    first = {path.name: path.read_bytes() for path in (tmp_path / "runs/r1").iterdir() if path.is_file()}
    assert queue_eval("finalize", "r1", "--no-wait", cwd=tmp_path).code == 0
    assert {name: (tmp_path / "runs/r1" / name).read_bytes() for name in first} == first


def test_i20_who_worked_before_a_wipe_holds_nothing_afterwards(
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


def test_cases_that_redis_has_lost_one_by_one_are_brought_back_by_who_follows_the_run(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    enqueued(tmp_path, provider, each_redis, 8, workers=WORKERS)
    redis = Redis.from_url(each_redis.url)
    (lost, *_) = redis.keys("rq:job:r1_*")
    redis.delete(lost)
    follower = started("finalize", "r1", *where(each_redis), "--follow-s", "1", cwd=tmp_path)
    try:
        ended(started("worker", "r1", *where(each_redis), cwd=tmp_path))
        out, err = follower.communicate(timeout=60)
    finally:
        follower.kill()
        follower.wait()
    assert follower.returncode == 0, out + err
    assert report(tmp_path, "r1")["accounting"]["scored"] == 8
