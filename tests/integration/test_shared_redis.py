"""The verbs of their own against a Redis that others share, and what happens when it goes away."""

import fcntl
import json
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from redis import Redis

from testkit.command import CANARY, environment, queue_eval, report, started, write_cases, write_eval
from testkit.provider.server import Provider
from testkit.provider.wire import Fault, always
from testkit.redis_server import Server
from testkit.waiting import wait_until

SLOW = {"processes": 1, "concurrency": 2, "lease_s": 1.5, "grace_s": 10}


def results(folder: Path) -> int:
    return len(list((folder / "runs/r1/results").glob("*.json"))) if (folder / "runs/r1/results").is_dir() else 0


def where(server: Server) -> list[str]:
    return ["--redis", server.url, "--store", "runs"]


def enqueued(tmp_path: Path, provider: Provider, server: Server, count: int, **sections: object) -> None:
    write_cases(tmp_path, count)
    done = queue_eval(
        "enqueue", write_eval(tmp_path, provider.url, **sections), "--run-id", "r1", *where(server), cwd=tmp_path
    )
    assert done.code == 0, done.err
    assert f"{count} enqueued" in done.out


def test_enqueue_worker_status_finalize(tmp_path: Path, provider: Provider, own_redis: Server) -> None:
    enqueued(tmp_path, provider, own_redis, 12)
    status = json.loads(queue_eval("status", "r1", *where(own_redis), "--json", cwd=tmp_path).out)
    assert (status["state"], status["ready"], status["total"]) == ("SEALED", 12, 12)
    early = queue_eval("finalize", "r1", *where(own_redis), "--timeout", "0.1", cwd=tmp_path)
    assert early.code == 2
    assert "12 of 12 cases have no outcome" in early.out
    assert queue_eval("worker", "r1", *where(own_redis), "--concurrency", "8", cwd=tmp_path).code == 0
    done = queue_eval("finalize", "r1", *where(own_redis), cwd=tmp_path)
    assert done.code == 0, done.err
    accounting = report(tmp_path, "r1")["accounting"]
    assert (accounting["scored"], accounting["judge_calls"]) == (12, provider.admitted)
    # a worker that comes too late finds the run over
    assert queue_eval("worker", "r1", *where(own_redis), cwd=tmp_path).code == 0


def test_a_server_that_would_evict_cases_is_refused_before_anything_is_enqueued(
    tmp_path: Path, provider: Provider, own_redis: Server
) -> None:
    redis = Redis.from_url(own_redis.url)
    redis.config_set("maxmemory", 100_000_000)
    redis.config_set("maxmemory-policy", "volatile-lru")
    write_cases(tmp_path, 2)
    path = write_eval(tmp_path, provider.url)
    for verb in ("enqueue", "run"):
        done = queue_eval(verb, path, "--run-id", "r1", *where(own_redis), cwd=tmp_path)
        assert done.code == 78
        assert "maxmemory-policy volatile-lru would evict cases" in done.err
        assert "noeviction" in done.err
    assert redis.keys("*") == []
    redis.config_set("maxmemory-policy", "noeviction")
    assert queue_eval("enqueue", path, "--run-id", "r1", *where(own_redis), cwd=tmp_path).code == 0


def test_a_server_that_forgets_when_it_restarts_is_reported(
    tmp_path: Path, provider: Provider, own_redis: Server
) -> None:
    Redis.from_url(own_redis.url).config_set("appendonly", "no")
    write_cases(tmp_path, 2)
    done = queue_eval(
        "enqueue", write_eval(tmp_path, provider.url), "--run-id", "r1", *where(own_redis), "--json", cwd=tmp_path
    )
    assert done.code == 0
    assert "appendonly is off" in done.err
    assert json.loads(done.out)["enqueued"] == 2


def test_static_shards_divide_a_run_among_them(tmp_path: Path, provider: Provider, own_redis: Server) -> None:
    enqueued(tmp_path, provider, own_redis, 13)
    for index in range(3):
        done = queue_eval(
            "worker", "r1", *where(own_redis), "--shard-index", str(index), "--total-shards", "3", cwd=tmp_path
        )
        assert done.code == 0, done.err
    assert queue_eval("finalize", "r1", "--store", "runs", "--no-wait", cwd=tmp_path).code == 0
    accounting = report(tmp_path, "r1")["accounting"]
    assert (accounting["scored"], accounting["executions"], accounting["missing"]) == (13, 13, 0)
    assert accounting["judge_calls"] == provider.admitted
    for wrong in (["--shard-index", "3", "--total-shards", "3"], ["--shard-index", "0"]):
        done = queue_eval("worker", "r1", *where(own_redis), *wrong, cwd=tmp_path)
        assert (done.code, "--shard-index" in done.err) == (64, True)


def test_rq_info_shows_the_run(tmp_path: Path, provider: Provider, own_redis: Server) -> None:
    enqueued(tmp_path, provider, own_redis, 5)
    command = [str(Path(sys.executable).parent / "rq"), "info", "--url", own_redis.url, "--raw"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=tmp_path)
    assert "queue queue-eval-r1 5" in shown.stdout


def test_no_key_is_without_a_lifetime_once_the_run_is_finalized(
    tmp_path: Path, provider: Provider, own_redis: Server
) -> None:
    limits = {"requests_per_minute": 60_000, "tokens_per_minute": 1e9}
    provider.fault = lambda _n, body: None
    enqueued(tmp_path, provider, own_redis, 8, limits=limits)
    queue_eval("worker", "r1", *where(own_redis), cwd=tmp_path)
    queue_eval("finalize", "r1", *where(own_redis), cwd=tmp_path)
    redis = Redis.from_url(own_redis.url)
    keys = redis.keys("*")
    assert keys
    assert [key for key in keys if redis.ttl(key) == -1] == []
    # nothing secret in any of them
    assert not any(CANARY.encode() in (redis.dump(key) or b"") for key in keys)


def test_sigterm_finishes_what_is_in_flight_releases_the_rest_and_exits_75(
    tmp_path: Path, provider: Provider, own_redis: Server
) -> None:
    provider.latency = always(0.1)
    enqueued(tmp_path, provider, own_redis, 20, workers=SLOW)
    worker = started("worker", "r1", *where(own_redis), cwd=tmp_path)
    wait_until(lambda: results(tmp_path) >= 3, within_s=60)
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=30)
    assert worker.returncode == 75, err
    redis = Redis.from_url(own_redis.url)
    stored = results(tmp_path)
    assert redis.zcard("qe:leases:r1") == 0
    assert redis.zcard("rq:finished:queue-eval-r1") == stored
    assert redis.llen("rq:queue:queue-eval-r1") == 20 - stored
    assert redis.smembers("rq:workers") == set()
    events = [json.loads(line)["event"] for line in err.splitlines() if line.startswith("{")]
    assert events[0] == "start"
    assert events[-1] == "exit"
    # the attempts of what was released are not counted
    assert queue_eval("worker", "r1", *where(own_redis), "--concurrency", "16", cwd=tmp_path).code == 0
    assert queue_eval("finalize", "r1", *where(own_redis), cwd=tmp_path).code == 0
    assert report(tmp_path, "r1")["accounting"]["judge_calls"] == provider.admitted


def test_a_sigterm_that_comes_before_the_program_waits_for_it(tmp_path: Path, own_redis: Server) -> None:
    """As the image begins, whose first process would not get it: blocked."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        worker = started("worker", "r1", *where(own_redis), "--wait-timeout", "60", cwd=tmp_path)
        worker.send_signal(signal.SIGTERM)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        _, err = worker.communicate(timeout=30)
    finally:
        worker.kill()
    assert (worker.returncode, err) == (75, "")


def test_sigterm_without_grace_gives_back_what_is_in_flight(
    tmp_path: Path, provider: Provider, own_redis: Server
) -> None:
    provider.latency = always(2.0)
    enqueued(tmp_path, provider, own_redis, 4, workers={**SLOW, "concurrency": 4, "grace_s": 0})
    worker = started("worker", "r1", *where(own_redis), cwd=tmp_path)
    redis = Redis.from_url(own_redis.url)
    before = provider.requests
    wait_until(lambda: provider.requests > before, within_s=60)
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=30)
    assert worker.returncode == 75
    assert redis.llen("rq:queue:queue-eval-r1") == 4
    provider.latency = always(0.0)
    assert queue_eval("worker", "r1", *where(own_redis), cwd=tmp_path).code == 0
    assert queue_eval("finalize", "r1", *where(own_redis), cwd=tmp_path).code == 0
    accounting = report(tmp_path, "r1")["accounting"]
    assert (accounting["scored"], accounting["dead"]) == (4, 0)
    assert accounting["judge_calls"] == provider.admitted


def test_i17_redis_that_dies_and_comes_back_costs_only_time(
    tmp_path: Path, provider: Provider, own_redis: Server
) -> None:
    provider.latency = always(0.05)
    enqueued(tmp_path, provider, own_redis, 20, workers=SLOW, retry={"case_attempts": 1})
    worker = started("worker", "r1", *where(own_redis), cwd=tmp_path)
    wait_until(lambda: results(tmp_path) >= 3, within_s=60)
    own_redis.kill()
    own_redis.start()
    _, err = worker.communicate(timeout=60)
    assert worker.returncode == 0, err
    queue_eval("finalize", "r1", *where(own_redis), cwd=tmp_path)
    accounting = report(tmp_path, "r1")["accounting"]
    assert (accounting["scored"], accounting["dead"], accounting["missing"]) == (20, 0, 0)


def test_i19_a_wiped_redis_is_filled_again_by_resume(tmp_path: Path, provider: Provider, each_redis: Server) -> None:
    provider.latency = always(0.05)
    write_cases(tmp_path, 24)
    run = started(
        "run", write_eval(tmp_path, provider.url, workers=SLOW), "--run-id", "r1", *where(each_redis), cwd=tmp_path
    )
    wait_until(lambda: results(tmp_path) >= 4, within_s=60)
    Redis.from_url(each_redis.url).flushall()
    _, err = run.communicate(timeout=90)
    assert run.returncode == 0, err
    assert "Redis lost the run" in err
    accounting = report(tmp_path, "r1")["accounting"]
    assert (accounting["scored"], accounting["missing"]) == (24, 0)
    # at most what was in flight was judged twice
    assert provider.admitted <= 24 * 7 + 2 + SLOW["concurrency"] * 7


def test_i19_what_was_retried_stays_so_after_a_wipe(tmp_path: Path, provider: Provider, each_redis: Server) -> None:
    provider.fault = lambda _n, body: Fault(400, '{"error": "content_filter"}') if "Item 3 " in str(body) else None
    write_cases(tmp_path, 6)
    path = write_eval(tmp_path, provider.url, metrics=[{"type": "FaithfulnessMetric"}], gate={})
    assert queue_eval("run", path, "--run-id", "r1", *where(each_redis), cwd=tmp_path).code == 2
    assert "1 case is ready again" in queue_eval("retry", "r1", *where(each_redis), cwd=tmp_path).out
    Redis.from_url(each_redis.url).flushall()
    provider.fault = lambda _n, _body: None
    done = queue_eval("run", "--resume", "r1", *where(each_redis), cwd=tmp_path)
    assert done.code == 0, done.err
    accounting = report(tmp_path, "r1")["accounting"]
    assert (accounting["scored"], accounting["dead"]) == (6, 0)
    assert accounting["judge_calls"] == provider.admitted


def run_without_courtesy(tmp_path: Path, provider: Provider, server: Server, cases: int) -> None:
    """A run of two metrics, of which one has no score for any case; from then on the judge answers for it too."""
    provider.fault = lambda _n, body: Fault(400, '{"error": "content_filter"}') if "COURTESY" in str(body) else None
    write_cases(tmp_path, cases)
    metrics = [
        {"type": "FaithfulnessMetric"},
        {"type": "GEval", "name": "G", "evaluation_steps": ["COURTESY?"], "evaluation_params": ["actual_output"]},
    ]
    path = write_eval(tmp_path, provider.url, metrics=metrics, gate={"max_error_rate": 0.0})
    assert queue_eval("run", path, "--run-id", "r1", *where(server), cwd=tmp_path).code == 2
    provider.fault = lambda _n, _body: None
    provider.bodies.clear()


def assert_only_courtesy_was_asked_for(tmp_path: Path, provider: Provider) -> None:
    asked = [str(body) for body in provider.bodies if "Item" in str(body)]
    assert asked
    assert all("COURTESY" in body for body in asked)
    assert report(tmp_path, "r1")["accounting"]["judge_calls"] == provider.admitted


def test_i19_metrics_that_were_retried_stay_so_after_a_wipe(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    """`retry` reaches workers of a shared Redis, twice is once, and the store alone knows of it."""
    run_without_courtesy(tmp_path, provider, each_redis, 3)
    assert "3 cases are ready again" in queue_eval("retry", "r1", *where(each_redis), cwd=tmp_path).out
    assert "0 cases are ready again" in queue_eval("retry", "r1", *where(each_redis), cwd=tmp_path).out
    assert queue_eval("finalize", "r1", "--no-wait", *where(each_redis)[2:], cwd=tmp_path).code == 2
    assert report(tmp_path, "r1")["accounting"]["missing"] == 3
    Redis.from_url(each_redis.url).flushall()
    done = queue_eval("run", "--resume", "r1", *where(each_redis), cwd=tmp_path)
    assert done.code == 0, done.err
    assert_only_courtesy_was_asked_for(tmp_path, provider)


def test_a_retry_after_redis_has_the_results_keeps_them(tmp_path: Path, provider: Provider, own_redis: Server) -> None:
    """Redis forgets a finished run after a day: it is enqueued again, and retried then."""
    run_without_courtesy(tmp_path, provider, own_redis, 2)
    Redis.from_url(own_redis.url).flushall()
    assert queue_eval("enqueue", "eval.yaml", "--run-id", "r1", *where(own_redis), cwd=tmp_path).code == 0
    assert "2 cases are ready again" in queue_eval("retry", "r1", *where(own_redis), cwd=tmp_path).out
    assert queue_eval("worker", "r1", *where(own_redis), cwd=tmp_path).code == 0
    assert queue_eval("finalize", "r1", *where(own_redis), cwd=tmp_path).code == 0
    assert_only_courtesy_was_asked_for(tmp_path, provider)


def test_the_limit_is_kept_by_all_processes_together(tmp_path: Path, provider: Provider, own_redis: Server) -> None:
    limits = {"requests_per_minute": 1200, "window": "sliding", "window_s": 1}
    write_cases(tmp_path, 12)
    done = queue_eval(
        "run",
        write_eval(tmp_path, provider.url, limits=limits),
        "--run-id",
        "r1",
        "--workers",
        "2",
        *where(own_redis),
        cwd=tmp_path,
    )
    assert done.code == 0, done.err
    body = report(tmp_path, "r1")
    # 84 calls at no more than 20 in any second
    assert body["elapsed_s"] >= (84 - 20) / 20


@pytest.mark.parametrize(
    "verb", [["worker", "r1"], ["finalize", "r1"], ["status", "r1"], ["enqueue", "eval.yaml", "--run-id", "r1"]]
)
def test_a_wrong_password_is_a_configuration_error(
    tmp_path: Path, provider: Provider, own_redis: Server, verb: list[str]
) -> None:
    write_cases(tmp_path, 2)
    write_eval(tmp_path, provider.url)
    assert queue_eval("enqueue", "eval.yaml", "--run-id", "r1", *where(own_redis), cwd=tmp_path).code == 0
    Redis.from_url(own_redis.url).config_set("requirepass", "secret-of-redis")
    done = queue_eval(*verb, *where(own_redis), cwd=tmp_path)
    assert done.code == 78, done.err
    assert "check the user, the password (redis.password_env) and the ACL" in done.err
    assert "Traceback" not in done.err


def test_a_password_comes_from_its_variable_and_reaches_the_workers(
    tmp_path: Path, provider: Provider, own_redis: Server
) -> None:
    Redis.from_url(own_redis.url).config_set("requirepass", "secret-of-redis")
    write_cases(tmp_path, 3)
    path = write_eval(tmp_path, provider.url, redis={"url": own_redis.url, "password_env": "REDIS_SECRET"})
    done = queue_eval("run", path, "--run-id", "r1", cwd=tmp_path, REDIS_SECRET="secret-of-redis")
    assert done.code == 0, done.err
    written = b"".join(p.read_bytes() for p in (tmp_path / "runs").rglob("*") if p.is_file())
    assert b"secret-of-redis" not in written


def test_an_unknown_run_and_no_redis_are_distinguished(tmp_path: Path, own_redis: Server) -> None:
    done = queue_eval("worker", "nope", *where(own_redis), cwd=tmp_path)
    assert (done.code, "holds no manifest.json" in done.err) == (66, True)
    done = queue_eval("worker", "nope", cwd=tmp_path)
    assert (done.code, "no Redis is named" in done.err) == (64, True)
    done = queue_eval("status", "nope", "--redis", "redis://127.0.0.1:1", cwd=tmp_path)
    assert (done.code, "cannot be reached" in done.err) == (69, True)


def test_a_store_that_fails_mid_run_ends_the_worker_with_everything_given_back(
    tmp_path: Path, provider: Provider, own_redis: Server
) -> None:
    enqueued(tmp_path, provider, own_redis, 4, workers=SLOW)
    # a file where the folder should be: no user can write results, root neither
    (tmp_path / "runs/r1/results").touch()
    worker = subprocess.run(
        [sys.executable, "-m", "queue_eval", "worker", "r1", *where(own_redis)], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert worker.returncode == 73, worker.stderr
    assert "Traceback" not in worker.stderr
    (tmp_path / "runs/r1/results").unlink()
    assert queue_eval("worker", "r1", *where(own_redis), cwd=tmp_path).code == 0
    assert results(tmp_path) == 4


def commands(text: str) -> list[list[str]]:
    """Those of queue-eval that a message gives its reader to paste."""
    found = [shlex.split(printed) for printed in re.findall(r"queue-eval ((?:run|finalize|worker) [^;,\n]*)", text)]
    assert found, text
    return found


def test_the_command_that_a_message_names_works_when_it_is_pasted(
    tmp_path: Path, provider: Provider, own_redis: Server
) -> None:
    """In another store than the default, whose name a shell would take apart."""
    place = ["--store", "my runs", "--redis", own_redis.url]
    write_cases(tmp_path, 4)
    path = write_eval(tmp_path, provider.url)
    assert queue_eval("enqueue", path, "--run-id", "r1", *place, cwd=tmp_path).code == 0
    write_cases(tmp_path, 5)
    other = queue_eval("enqueue", path, "--run-id", "r1", *place, cwd=tmp_path)
    assert (other.code, "exists with other cases" in other.err) == (65, True)
    for command in commands(other.err):
        assert queue_eval(*command, cwd=tmp_path).code == 0
    # of a file that names its store
    path = write_eval(tmp_path, provider.url, store="its runs")
    assert queue_eval("run", path, "--run-id", "r2", cwd=tmp_path).code == 0
    write_cases(tmp_path, 6)
    other = queue_eval("run", path, "--run-id", "r2", cwd=tmp_path)
    assert (other.code, "exists with other cases" in other.err) == (65, True)
    for command in commands(other.err):
        assert queue_eval(*command, cwd=tmp_path).code == 0
    # without its Redis
    no_redis = queue_eval("tune", "r2", "--rpm", "10", "--store", "its runs", cwd=tmp_path)
    assert no_redis.code == 64
    for command in commands(no_redis.err):
        assert queue_eval(*command, cwd=tmp_path).code == 0
    # aborted
    assert queue_eval("enqueue", path, "--run-id", "r3", *place, cwd=tmp_path).code == 0
    assert queue_eval("abort", "r3", *place, cwd=tmp_path).code == 0
    again = queue_eval("enqueue", path, "--run-id", "r3", *place, cwd=tmp_path)
    assert (again.code, "was aborted" in again.err) == (65, True)
    for command in commands(again.err):
        assert "the run was aborted" in queue_eval(*command, cwd=tmp_path).out


@pytest.mark.parametrize("height", [30, 5])
def test_a_status_that_is_watched_stands_once_on_a_terminal(
    tmp_path: Path, provider: Provider, own_redis: Server, height: int
) -> None:
    enqueued(tmp_path, provider, own_redis, 3)
    shown, to_terminal = pty.openpty()
    fcntl.ioctl(to_terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, 50, 0, 0))  # narrow: lines wrap
    command = [sys.executable, "-m", "queue_eval", "status", "r1", *where(own_redis), "--watch"]
    watching = subprocess.Popen(command, cwd=tmp_path, env=environment(COLUMNS="", LINES=""), stdout=to_terminal)
    try:
        text = b""
        while text.count(b"run r1: SEALED") < 3 or not text.endswith(b"\n"):
            assert select.select([shown], [], [], 30)[0], text
            text += os.read(shown, 4096)
    finally:
        watching.kill()
        watching.wait()
        os.close(shown)
        os.close(to_terminal)
    screen = on_screen(text.decode(), columns=50)
    assert len(screen) <= height
    assert sum("run r1: SEALED" in row for row in screen) == 1
    assert screen[0].startswith("run r1: SEALED")


def on_screen(text: str, columns: int) -> list[str]:
    """What a terminal shows of it: wraps long lines, goes up to a line's beginning (CSI n F), erases below (CSI J)."""
    rows, row = [""], 0
    for part in re.findall(r"\x1b\[\d*[FJ]|\r|\n|[^\x1b\r\n]+", text):
        if part.endswith("F") and part.startswith("\x1b"):
            row = max(0, row - max(1, int(part[2:-1])))
        elif part == "\x1b[J":
            rows[row:] = [""]
        elif part == "\n":
            row += 1
            rows[row:row] = [""] if row == len(rows) else []
        elif part != "\r":
            pieces = [part[n : n + columns] for n in range(0, len(part), columns)]
            for number, piece in enumerate(pieces):
                row += number > 0
                rows[row:] = [piece]
    return rows


def test_an_abort_outlives_redis(tmp_path: Path, provider: Provider, own_redis: Server) -> None:
    """The store keeps it: after a wipe nothing takes the run up again, and it never passes."""
    enqueued(tmp_path, provider, own_redis, 6)
    assert queue_eval("abort", "r1", *where(own_redis), cwd=tmp_path).code == 0
    Redis.from_url(own_redis.url).flushall()
    asked = provider.requests
    for command in (["run", "--resume", "r1"], ["enqueue", "eval.yaml", "--run-id", "r1"], ["retry", "r1"]):
        for place in (["--store", "runs"], where(own_redis)):
            done = queue_eval(*command, *place, cwd=tmp_path)
            assert (done.code, "was aborted, and that is for good" in done.err) in [(65, True), (64, False)], done.err
    assert provider.requests == asked
    status = queue_eval("status", "r1", "--store", "runs", cwd=tmp_path).out
    assert "it was aborted" in status
    assert "--resume" not in status
    done = queue_eval("finalize", "r1", "--store", "runs", "--no-wait", cwd=tmp_path)
    assert (done.code, "the run was aborted" in done.out) == (2, True)


def test_an_abort_without_the_runs_store_reports_that_redis_alone_knows(
    tmp_path: Path, provider: Provider, own_redis: Server
) -> None:
    enqueued(tmp_path, provider, own_redis, 2)
    done = queue_eval("abort", "r1", "--redis", own_redis.url, "--store", "elsewhere", cwd=tmp_path)
    assert (done.code, "Redis alone knows that it is aborted" in done.err) == (0, True)
    assert not (tmp_path / "elsewhere").exists()
    # the finalizer finds the abort in Redis and records it in the store
    assert queue_eval("finalize", "r1", *where(own_redis), cwd=tmp_path).code == 2
    assert (tmp_path / "runs/r1/aborted.json").exists()
