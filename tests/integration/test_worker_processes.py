"""`worker --processes N` is to its supervisor what one worker is: it drains the run, leaves when it has to, and reports why it cannot work."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

from testkit.command import environment, queue_eval, report, rows, started
from testkit.provider.server import Provider
from testkit.provider.wire import always
from testkit.redis_server import Server
from testkit.template import Forked
from testkit.waiting import wait_until
from tests.integration.test_run import children_of, workers_of
from tests.integration.test_shared_redis import enqueued, results, where

WORKERS = {"processes": 1, "concurrency": 3, "lease_s": 1.5, "grace_s": 10}


def test_all_of_them_work_and_all_leave_when_the_run_is_drained(
    tmp_path: Path, provider: Provider, own_redis: Server
) -> None:
    provider.latency = always(0.2)
    enqueued(tmp_path, provider, own_redis, 30, workers=WORKERS)
    done = queue_eval("worker", "r1", *where(own_redis), "--processes", "3", cwd=tmp_path)
    assert done.code == 0, done.err
    assert queue_eval("finalize", "r1", *where(own_redis), cwd=tmp_path).code == 0
    accounting = report(tmp_path, "r1")["accounting"]
    assert (accounting["scored"], accounting["executions"], accounting["judge_calls"]) == (30, 30, provider.admitted)
    assert len({row["worker"] for row in rows(tmp_path, "r1")}) == 3


def two_workers_at_work(tmp_path: Path, provider: Provider, redis: Server, *, latency_s: float) -> Forked:
    """Return the process of `worker --processes 2` when four of its 60 cases are stored."""
    provider.latency = always(latency_s)
    enqueued(tmp_path, provider, redis, 60, workers=WORKERS)
    workers = started("worker", "r1", *where(redis), "--processes", "2", cwd=tmp_path)
    wait_until(lambda: results(tmp_path) >= 4, within_s=60)
    return workers


def assert_ended_with_everything_released(workers: Forked, tmp_path: Path, redis: Server) -> None:
    _, err = workers.communicate(timeout=60)
    assert workers.returncode == 75, err
    client = Redis.from_url(redis.url)
    assert client.zcard("qe:leases:r1") == 0
    assert client.llen("rq:queue:queue-eval-r1") == 60 - results(tmp_path)


def test_sigterm_is_for_all_of_them(tmp_path: Path, provider: Provider, own_redis: Server) -> None:
    workers = two_workers_at_work(tmp_path, provider, own_redis, latency_s=0.2)
    workers.send_signal(signal.SIGTERM)
    assert_ended_with_everything_released(workers, tmp_path, own_redis)


def test_sigterm_to_every_process_of_the_service_at_once_releases_all(
    tmp_path: Path, provider: Provider, own_redis: Server
) -> None:
    """As systemd sends it: the template gets it too."""
    workers = two_workers_at_work(tmp_path, provider, own_redis, latency_s=0.5)
    processes = [*children_of(workers.pid), *workers_of(workers.pid), workers.pid]
    assert len(processes) == 4
    for pid in processes:
        os.kill(pid, signal.SIGTERM)
    assert_ended_with_everything_released(workers, tmp_path, own_redis)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes), within_s=10)  # init reaps them


STREAMS = [">out 2>&1", ">out 2>err", "2>&1 >out | cat >err", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"]


@pytest.mark.parametrize("streams", STREAMS)
def test_they_work_whatever_the_standard_streams_are(
    tmp_path: Path, provider: Provider, own_redis: Server, streams: str
) -> None:
    enqueued(tmp_path, provider, own_redis, 3, workers=WORKERS)
    words = [sys.executable, "-m", "queue_eval", "worker", "r1", *where(own_redis), "--processes", "2"]
    command = f"set -o pipefail; {shlex.join(words)} {streams}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment(), check=False, timeout=60)
    assert done.returncode == 0, [file.read_text() for file in tmp_path.glob("err")]
    assert results(tmp_path) == 3


def test_one_that_is_killed_is_replaced(tmp_path: Path, provider: Provider, own_redis: Server) -> None:
    provider.latency = always(0.2)
    enqueued(tmp_path, provider, own_redis, 40, workers=WORKERS)
    workers = started("worker", "r1", *where(own_redis), "--processes", "2", cwd=tmp_path)
    wait_until(lambda: results(tmp_path) >= 2, within_s=60)
    first = workers_of(workers.pid)
    os.kill(first[0], signal.SIGKILL)
    wait_until(lambda: len(set(workers_of(workers.pid)) - set(first)) == 1, within_s=30)
    _, err = workers.communicate(timeout=90)
    assert workers.returncode == 0, err
    assert results(tmp_path) == 40


def test_why_none_can_work_is_reported_with_its_exit_code(
    tmp_path: Path, provider: Provider, own_redis: Server
) -> None:
    enqueued(tmp_path, provider, own_redis, 4, workers=WORKERS)
    done = queue_eval("worker", "r1", *where(own_redis), "--processes", "2", cwd=tmp_path, JUDGE_API_KEY="")
    assert done.code == 78, done.err
    assert "JUDGE_API_KEY is not set here" in done.err
    assert queue_eval("abort", "r1", *where(own_redis), cwd=tmp_path).code == 0
    assert queue_eval("worker", "r1", *where(own_redis), "--processes", "2", cwd=tmp_path).code == 65


@pytest.mark.parametrize("wrong", [["--alive-file", "f"], ["--shard-index", "0", "--total-shards", "2"]])
def test_what_is_about_one_process_is_refused_for_several(
    tmp_path: Path, provider: Provider, own_redis: Server, wrong: list[str]
) -> None:
    done = queue_eval("worker", "r1", *where(own_redis), "--processes", "2", *wrong, cwd=tmp_path)
    assert (done.code, "leave --processes out" in done.err) == (64, True)
