"""What an attacker would try, beside the tests of escaping, paths and secrets in test_run.py."""

import ast
import asyncio
import gzip
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from redis import Redis
from redis.exceptions import ResponseError

from queue_eval.judge.metadata import is_metadata
from queue_eval.judge.openai import MAX_ANSWER_BYTES
from queue_eval.local.redis_address_file import RedisAddressFile
from queue_eval.ports.judge_error import JudgeError
from queue_eval.report.escape import for_markdown, for_terminal
from testkit.command import (
    CANARY,
    Done,
    environment,
    python_path,
    queue_eval,
    report,
    started,
    write_cases,
    write_eval,
)
from testkit.openai_client import client_of
from testkit.provider.server import Provider
from testkit.provider.wire import Fault, always
from testkit.redis_server import Server, product_server
from testkit.waiting import wait_until
from tests.integration.test_run import workers_of
from tests.integration.test_shared_redis import enqueued, results, where

ROOT = Path(__file__).parents[2]
UNSAFE = {"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "jsonpickle"}


def test_nothing_of_ours_unpickles() -> None:
    for path in (ROOT / "queue_eval").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            modules = {*names, node.module or ""} if isinstance(node, ast.ImportFrom) else set(names)
            assert not {name.split(".")[0] for name in modules} & UNSAFE, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile"}, path


def held(server: Server) -> bytes:
    """Everything that Redis holds, as text."""
    redis = Redis.from_url(server.url)
    parts: list[object] = []
    for key in redis.scan_iter():
        match redis.type(key):
            case b"string":
                parts.append(redis.get(key))
            case b"hash":
                parts.append(redis.hgetall(key))
            case b"list":
                parts.append(redis.lrange(key, 0, -1))
            case b"set":
                parts.append(redis.smembers(key))
            case b"zset":
                parts.append(redis.zrange(key, 0, -1))
            case _:
                parts.append(redis.xrange(key))
        parts.append(key)
    return repr(parts).encode()


def test_no_secret_is_in_redis_while_a_run_goes_on(tmp_path: Path, provider: Provider, own_redis: Server) -> None:
    provider.latency = always(0.1)
    enqueued(tmp_path, provider, own_redis, 12, workers={"concurrency": 2}, limits={"requests_per_minute": 6000})
    worker = started("worker", "r1", *where(own_redis), cwd=tmp_path)
    try:
        wait_until(lambda: results(tmp_path) >= 3, within_s=60)
        seen = held(own_redis)
        assert b"qe:limit" in seen
        assert CANARY.encode() not in seen
        _, err = worker.communicate(timeout=60)
    finally:
        worker.kill()
    assert CANARY not in err


def acl(role: str) -> list[str]:
    """The line of docs/reference/redis-users.acl for a role, without its name and password."""
    lines = (ROOT / "docs" / "reference" / "redis-users.acl").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"user {role} ")]
    return [word for word in line.split()[2:] if not word.startswith(("on", ">"))]


# to users that may only produce or work: other people's keys, the server's settings and its end
FORBIDDEN = (
    ("FLUSHALL",),
    ("CONFIG", "GET", "*"),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("GET", "of-another"),
    ("SET", "of-another", "1"),
    ("EVAL", "return redis.call('GET', 'of-another')", "0"),
    ("RPUSH", "rq:queue:default", "of-another"),
    ("HSET", "rq:job:nightly-report", "data", "a pickle of another"),
    ("HSET", "rq:job:7d1cbd42-95a3-4ad8-8ba5-9a1f0d6c3d55", "data", "a pickle of another"),
    ("SADD", "rq:job:nightly-report:dependents", "evil"),
    ("HSET", "rq:job:task_7d1cbd4295a34ad88ba59a1f0d6c3d55", "data", "a pickle of another"),
    ("SADD", f"rq:job:queue-eval-r1_{24 * 'a'}:dependents", "evil"),
    ("HSET", "rq:job:task_507f1f77bcf86cd799439011", "data", "a pickle under an id of MongoDB's"),
    ("HSET", f"rq:job:r1_{24 * 'a'}", "data", "a pickle of another"),
    ("DEL", "rq:wip:default"),
    ("ACL", "WHOAMI"),
    ("SHUTDOWN",),
    ("SCRIPT", "FLUSH"),
    ("CLIENT", "LIST"),
    ("MONITOR",),
    ("PUBLISH", "of-another", "1"),
    ("SUBSCRIBE", "of-another"),
)


def test_the_documented_redis_users_suffice_and_may_no_more(
    tmp_path: Path, provider: Provider, each_redis: Server
) -> None:
    admin = Redis.from_url(each_redis.url)
    admin.config_set("maxmemory-policy", "noeviction")
    for role in ("qe-producer", "qe-worker"):
        admin.execute_command("ACL", "SETUSER", role, "on", f">{role}-pw", *acl(role))  # type: ignore[no-untyped-call]

    def place(role: str) -> list[str]:
        return ["--redis", each_redis.url.replace("unix://", f"unix://{role}@"), "--store", "runs"]

    write_cases(tmp_path, 8)
    path = write_eval(tmp_path, provider.url, limits={"requests_per_minute": 6000})
    secret = {"QUEUE_EVAL_REDIS_PASSWORD": "qe-producer-pw"}
    done = queue_eval("enqueue", path, "--run-id", "r1", *place("qe-producer"), cwd=tmp_path, **secret)  # type: ignore[arg-type]
    assert done.code == 0, done.err
    worker = queue_eval("worker", "r1", *place("qe-worker"), cwd=tmp_path, QUEUE_EVAL_REDIS_PASSWORD="qe-worker-pw")
    assert worker.code == 0, worker.err
    for verb in ("status", "finalize"):
        done = queue_eval(verb, "r1", *place("qe-producer"), cwd=tmp_path, **secret)  # type: ignore[arg-type]
        assert done.code == 0, done.err
    assert report(tmp_path, "r1")["accounting"]["scored"] == 8
    # a fixed slice is enqueued by its worker
    done = queue_eval("enqueue", path, "--run-id", "r2", *place("qe-producer"), cwd=tmp_path, **secret)  # type: ignore[arg-type]
    assert done.code == 0, done.err
    worker = queue_eval(
        "worker", "r2", *place("qe-worker"), "--shard-index", "0", "--total-shards", "1", cwd=tmp_path, QUEUE_EVAL_REDIS_PASSWORD="qe-worker-pw"
    )  # fmt: skip
    assert worker.code == 0, worker.err
    admin.zadd("rq:failed:queue-eval-r2", {f"queue-eval-r2_{24 * '0'}": 0})  # a retry looks at each
    for verb, *more in (("tune", "--rpm", "100"), ("retry",), ("abort",)):
        done = queue_eval(verb, "r2", *more, *place("qe-producer"), cwd=tmp_path, **secret)  # type: ignore[arg-type]
        assert "NOPERM" not in done.err
        assert "can't" not in done.err
        assert done.code in (0, 65, 66), done.err
    # nor was anything denied that is done without
    denied = {entry["object"] for entry in admin.acl_log()}
    assert denied <= {"client", "client|setinfo"}  # the client's own, of which it takes a no
    planted = (("XADD", "rq:results:r1_x", "*", "type", "1"), ("SET", "rq:results:r1_x", "1"))
    for role in ("qe-producer", "qe-worker"):
        redis = Redis.from_url(each_redis.url, username=role, password=f"{role}-pw")
        for forbidden in (*FORBIDDEN, *planted):
            with pytest.raises(ResponseError, match=r"no permissions|can't (run|access)"):
                redis.execute_command(*forbidden)  # type: ignore[no-untyped-call]


def test_an_operator_undoes_what_a_workers_user_has_done(each_redis: Server) -> None:
    """A script without end, and a limiter whose keys hold what no version of ours can read."""
    admin = Redis.from_url(each_redis.url)
    for role in ("qe-worker", "qe-operator"):
        admin.execute_command("ACL", "SETUSER", role, "on", f">{role}-pw", *acl(role))  # type: ignore[no-untyped-call]
    admin.config_set("lua-time-limit", 50)
    worker, operator = (
        Redis.from_url(each_redis.url, username=role, password=f"{role}-pw") for role in ("qe-worker", "qe-operator")
    )
    worker.set("qe:limit:{x}:state", "no hash")

    def endless() -> None:
        with pytest.raises(ResponseError, match="killed by user"):
            worker.eval("while true do end", 0)

    holding = threading.Thread(target=endless)
    holding.start()
    wait_until(lambda: _is_busy(operator), within_s=10)
    operator.execute_command("SCRIPT", "KILL")  # type: ignore[no-untyped-call]
    holding.join(10)
    assert operator.ping()
    assert list(operator.scan_iter("qe:limit:*")) == [b"qe:limit:{x}:state"]
    operator.delete("qe:limit:{x}:state")
    for denied in (
        ("HSET", "qe:run:r1", "state", "DRAINED"),
        ("RPUSH", "rq:queue:queue-eval-r1", "x"),
        ("GET", "of-another"),
        ("DEL", "rq:queue:default"),
        ("FLUSHALL",),
        ("EVAL", "return 1", "0"),
        ("CONFIG", "GET", "*"),
        ("SET", "qe:x", "1"),
    ):
        with pytest.raises(ResponseError, match=r"no permissions|can't (run|access)"):
            operator.execute_command(*denied)  # type: ignore[no-untyped-call]


def _is_busy(redis: "Redis") -> bool:
    try:
        redis.ping()
    except ResponseError as error:
        return "BUSY" in str(error)
    return False


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "2852039166", "[fe80::1]", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "100.100.100.200"],
)
def test_a_judge_where_clouds_keep_credentials_is_refused(tmp_path: Path, host: str) -> None:
    write_cases(tmp_path, 1)
    done = queue_eval("run", write_eval(tmp_path, f"http://{host}/latest"), "--run-id", "r1", cwd=tmp_path)
    assert (done.code, "where clouds keep credentials" in done.err) == (77, True), done.err


async def test_a_name_that_leads_elsewhere_only_while_it_is_checked_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["93.184.216.34", "169.254.169.254"])

    async def rebinding(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), 80))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", rebinding)
    judge = client_of("http://judge.example/v1")
    with pytest.raises(JudgeError, match="where clouds keep credentials"):
        await judge.ask("prompt", None)
    await judge.close()


async def test_an_answer_that_unfolds_without_end_is_refused() -> None:
    packed = gzip.compress(b" " * (2 * MAX_ANSWER_BYTES))
    assert len(packed) < 10_000

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=packed, headers={"Content-Encoding": "gzip"})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    judge = client_of(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
    try:
        with pytest.raises(JudgeError, match="larger than 4,000,000 bytes"):
            await judge.ask("prompt", None)
    finally:
        await judge.close()
        await runner.cleanup()


def test_a_redirect_is_not_followed(tmp_path: Path, provider: Provider) -> None:
    provider.fault = lambda _n, _b: Fault(302, headers={"Location": "http://169.254.169.254/latest"})
    write_cases(tmp_path, 1)
    done = queue_eval("run", write_eval(tmp_path, provider.url), "--run-id", "r1", cwd=tmp_path)
    assert done.code in (69, 77), done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("address", ["169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "::ffff:0:a9fe:a9fe", "fd00:ec2::23", "fd20:ce::254", "168.63.129.16", "fe80::1%eth0"])  # fmt: skip
def test_where_clouds_keep_credentials(address: str) -> None:
    assert is_metadata(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "64:ff9b::a00:1", "::1", "fd00::1"])
def test_where_judges_live(address: str) -> None:
    assert not is_metadata(address)


def test_text_is_harmless_in_markdown_and_on_a_terminal() -> None:
    shown = for_markdown("see www.evil.example, WWW.evil.example and https://evil.example, @all")
    assert not re.search(r"(?i)www\.|://|@\w", shown)
    assert for_terminal("a\u061cb\u2028c\u2029d\x1b[2J\u202e") == "a\ufffdb\ufffdc\ufffdd\ufffd[2J\ufffd"


def test_what_another_hand_writes_beside_a_run_neither_ends_its_finalizing_nor_reaches_the_report(
    tmp_path: Path, provider: Provider, own_redis: Server
) -> None:
    """Every worker's user may write there: odd rows are left out, and the verdict stands."""
    enqueued(tmp_path, provider, own_redis, 4, limits={"requests_per_minute": 60_000})
    assert queue_eval("worker", "r1", *where(own_redis), cwd=tmp_path).code == 0
    redis = Redis.from_url(own_redis.url)
    lanes: Any
    (lanes,) = redis.keys("qe:limit:*:lanes")
    timeline = lanes.replace(b":lanes", b":timeline")
    row = {
        "at": 1.0,
        "released": 1,
        "refused": 0,
        "cuts": 0,
        "paused_ms": 0,
        "waiting": 0,
        "factor": 1,
        "lanes": {},
        "used": {},
    }
    odd = ["{", "[]", "null", '"x"', "1e999", "[" * 50_000]
    bad_limits: list[object] = [{"requests": "x"}, {"requests": None}, 3, {"a": {}}]
    bad_times: list[object] = ["now", None, [], float("nan"), -1]
    odd += [json.dumps({**row, "limits": limits}) for limits in bad_limits]
    odd += [json.dumps({**row, "limits": {}, "at": at}) for at in bad_times]
    redis.rpush(timeline, *odd)
    redis.zadd("qe:workers:r1", {"e": time.time() * 1000, "f": time.time() * 1000})
    redis.hset("rq:worker:e", "concurrency", "1")
    redis.hset("rq:worker:f", mapping={"concurrency": "many", "in_flight": "<b>", "waiting": "-"})
    status = queue_eval("status", "r1", *where(own_redis), cwd=tmp_path)
    assert status.code == 0, status.err
    for _ in range(2):  # the second time from what the first has stored
        done = queue_eval("finalize", "r1", *where(own_redis), cwd=tmp_path)
        assert done.code == 0, done.err
        assert "Traceback" not in done.err
        body = report(tmp_path, "r1")
        assert body["accounting"]["scored"] == 4
        assert all(slot["at"] > 1e9 for slot in body["limiter"]["timeline"])


def test_whatever_stands_in_the_runs_hash_the_verdict_is_of_what_is_stored(
    tmp_path: Path, provider: Provider, own_redis: Server
) -> None:
    """One field after another is another hand's."""
    enqueued(tmp_path, provider, own_redis, 4)
    assert queue_eval("worker", "r1", *where(own_redis), cwd=tmp_path).code == 0
    redis = Redis.from_url(own_redis.url)
    whole: dict[bytes, bytes] = redis.hgetall("qe:run:r1")  # type: ignore[assignment]
    assert {b"total", b"scored", b"executions", b"state", b"n:judge_calls"} <= whole.keys()
    for number, field in enumerate([*whole, b"hedging", b"hold", b"n:\xff"]):
        redis.delete("qe:run:r1")
        redis.hset("qe:run:r1", mapping={**whole, field: ("nan", "inf", "<b>", "-1")[number % 4]})  # type: ignore[dict-item]
        status = queue_eval("status", "r1", *where(own_redis), cwd=tmp_path)
        assert (status.code in (0, 65), "Traceback" in status.err) == (True, False), (field, status.err)
        done = queue_eval("finalize", "r1", *where(own_redis), "--timeout", "5", cwd=tmp_path)
        assert (done.code, report(tmp_path, "r1")["accounting"]["scored"]) == (0, 4), (field, done.err)
        (tmp_path / "runs" / "r1" / "report.json").unlink()


def test_counts_that_another_hand_writes_while_a_run_goes_on_stop_no_worker(
    tmp_path: Path, provider: Provider, own_redis: Server
) -> None:
    enqueued(tmp_path, provider, own_redis, 4)
    redis = Redis.from_url(own_redis.url)
    counts = ("executions", "hedging", "hedged", "reaped", "done_ms", "done_bytes", "n:judge_calls", "n:input_tokens")
    redis.hset("qe:run:r1", mapping=dict.fromkeys(counts, "nan"))
    worker = queue_eval("worker", "r1", *where(own_redis), cwd=tmp_path)
    assert worker.code == 0, worker.err
    done = queue_eval("finalize", "r1", *where(own_redis), cwd=tmp_path)
    assert (done.code, report(tmp_path, "r1")["accounting"]["scored"]) == (0, 4), done.err


@pytest.mark.parametrize("forks", [True, False])
def test_a_module_beside_eval_yaml_stands_in_for_none_of_ours(tmp_path: Path, provider: Provider, forks: bool) -> None:
    """As the command is installed: the folder is not on its path, and so on no worker's."""
    (tmp_path / "tenacity.py").write_text("import sys; sys.stderr.write('CODE FROM THE FOLDER'); raise ImportError")
    write_cases(tmp_path, 4)
    path = write_eval(tmp_path, provider.url, workers={"processes": 2})
    script = Path(sys.executable).with_name("queue-eval").read_text().split("\n", 1)[1]
    if not forks:
        script = "import queue_eval.local.forks as f; f.Template.forked = classmethod(lambda *_: None)\n" + script
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "queue-eval").write_text(script)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "bin" / "queue-eval"), "run", str(path), "--run-id", "r1"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    printed = done.stderr + "".join(log.read_text() for log in (tmp_path / "runs/r1/logs").glob("*"))
    assert (done.returncode, "CODE FROM THE FOLDER" in printed) == (0, False), printed


@pytest.fixture
def elsewhere() -> Iterator[Provider]:
    """A server that nothing in eval.yaml names."""
    server = Provider().start()
    yield server
    server.close()


JUDGE_CHANGES = [{"base_url": "{elsewhere}"}, {"api_key_env": "AWS_SECRET_ACCESS_KEY"}]


def change_judge(tmp_path: Path, **changed: str) -> None:
    path = tmp_path / "runs" / "r1" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["settings"]["judge"].update(changed)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("change", JUDGE_CHANGES, ids=["another address", "another secret"])
@pytest.mark.parametrize("command", ["worker", "run --resume", "retry", "run eval.yaml"])
def test_what_can_write_the_store_does_not_choose_where_a_secret_is_sent(
    tmp_path: Path, provider: Provider, own_redis: Server, elsewhere: Provider, command: str, change: dict[str, str]
) -> None:
    """The store's folder is open to other users of this machine; the manifest is changed after the run was enqueued."""
    secret = "whatever-else-stands-in-the-environment"
    enqueued(tmp_path, provider, own_redis, 3)
    (tmp_path / "runs").chmod(0o777)
    change_judge(tmp_path, **{name: value.format(elsewhere=elsewhere.url) for name, value in change.items()})
    asked = provider.admitted
    words = {
        "worker": ["worker", "r1", *where(own_redis)],
        "run --resume": ["run", "--resume", "r1", "--store", "runs"],
        "retry": ["retry", "r1", "--store", "runs"],
        "run eval.yaml": ["run", "eval.yaml", "--resume", "r1", "--store", "runs"],
    }[command]
    allowed = {"QUEUE_EVAL_ALLOWED_JUDGES": provider.url, "QUEUE_EVAL_ALLOWED_SECRETS": "JUDGE_API_KEY"}
    for printed in ({}, allowed):
        done = queue_eval(*words, cwd=tmp_path, AWS_SECRET_ACCESS_KEY=secret, timeout_s=60, stdin=None, **printed)
        assert done.code == (65 if command == "run eval.yaml" else 78), done.err
        assert "manifest.json" in done.err
        assert "Traceback" not in done.err
    assert elsewhere.requests == 0
    assert provider.admitted == asked
    assert not any(secret in key for key in provider.keys)


def test_a_manifest_that_is_planted_while_the_run_begins_is_not_followed(
    tmp_path: Path, provider: Provider, elsewhere: Provider
) -> None:
    """As of another run of the same inputs, with another judge, before the first call is answered."""
    write_cases(tmp_path, 3)
    path = write_eval(tmp_path, provider.url)
    assert queue_eval("run", path, "--run-id", "r1", cwd=tmp_path).code == 0
    change_judge(tmp_path, base_url=elsewhere.url)
    planted = json.loads((tmp_path / "runs" / "r1" / "manifest.json").read_text()) | {"run_id": "r2"}
    provider.latency = always(2.0)
    asked = provider.requests
    run = started("run", path, "--run-id", "r2", cwd=tmp_path)
    wait_until(lambda: provider.requests > asked, within_s=30)
    (tmp_path / "runs" / "r2" / "manifest.json").write_text(json.dumps(planted))
    _, err = run.communicate(timeout=60)
    assert (run.returncode, "judge" in err, elsewhere.requests) == (65, True, 0), err


def test_a_metric_that_is_put_into_the_manifest_is_not_imported(tmp_path: Path, provider: Provider) -> None:
    write_cases(tmp_path, 3)
    path = write_eval(tmp_path, provider.url)
    assert queue_eval("run", path, "--run-id", "r1", cwd=tmp_path).code == 0
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    manifest = tmp_path / "runs" / "r1" / "manifest.json"
    body = json.loads(manifest.read_text())
    body["settings"]["metrics"][0]["type"] = "evil:E"
    manifest.write_text(json.dumps(body))
    done = queue_eval("run", path, "--resume", "r1", cwd=tmp_path, PYTHONPATH=python_path(tmp_path))
    assert (done.code, "metrics" in done.err) == (65, True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["a link", "of others", "no socket", "no text"])
def test_what_stands_in_a_runs_folder_gets_no_password(tmp_path: Path, own_redis: Server, kind: str) -> None:
    """Nor is a file overwritten that a link there leads to."""
    run = tmp_path / "runs" / "r1"
    run.mkdir(parents=True)
    contact, precious = run / ".redis", tmp_path / "precious"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(run / "evil.sock"))
        listener.listen()
        listener.settimeout(0.5)
        url = f"unix://{run / 'evil.sock'}"
        precious.write_text(url)
        match kind:
            case "a link":
                contact.symlink_to(precious)
            case "of others":
                contact.write_text(url)
                contact.chmod(0o666)
            case "no socket":
                contact.write_text("redis://127.0.0.1:1")
            case _:
                contact.write_bytes(b"\xff\xfe\x00")
        done = queue_eval("status", "r1", "--store", "runs", cwd=tmp_path, QUEUE_EVAL_REDIS_PASSWORD="secret")
        assert done.code in (64, 66), done.err
        assert "Traceback" not in done.err
        with pytest.raises(TimeoutError):
            listener.accept()
    with RedisAddressFile(tmp_path / "runs", "r1").showing("unix:///x"):
        assert precious.read_text() == url


@pytest.mark.parametrize(
    ("planted", "kind"),
    [
        ("results", "link"),
        ("logs", "link"),
        ("logs", "pipe"),
        ("logs/worker-1.log", "link"),
        ("logs/worker-1.log", "pipe"),
    ],
)
def test_what_another_user_has_planted_in_a_runs_folder_is_not_followed(
    tmp_path: Path, provider: Provider, planted: str, kind: str
) -> None:
    """A link leads nowhere, and a pipe holds nothing up: the run ends with the name of what stands in its way."""
    write_cases(tmp_path, 2)
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("untouched")
    place = tmp_path / "runs" / "r1" / planted
    place.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(victim if "." not in planted else victim / "file")
    path = write_eval(tmp_path, provider.url, workers={"processes": 2, "lease_s": 1.5, "grace_s": 1})
    done = queue_eval("run", path, "--run-id", "r1", cwd=tmp_path, timeout_s=30)
    # 69 where it is a worker that cannot work
    assert (done.code in (69, 73), place.name in done.err) == (True, True), done.err
    assert "Traceback" not in done.err
    assert [one.name for one in victim.iterdir()] == ["file"]
    assert (victim / "file").read_text() == "untouched"


def test_what_another_hand_has_made_of_the_stores_objects_is_named(tmp_path: Path, provider: Provider) -> None:
    """A pipe, a text that unfolds without end, a report of another shape."""
    write_cases(tmp_path, 2)
    assert queue_eval("run", write_eval(tmp_path, provider.url), "--run-id", "r1", cwd=tmp_path).code == 0
    folder = tmp_path / "runs" / "r1"
    for text in ("[" * 100_000, "[]", "{"):
        (folder / "report.json").write_text(text)
        status = queue_eval("status", "r1", "--store", "runs", cwd=tmp_path)
        assert (status.code, "report.json" in status.err) == (65, True), status.err
    manifest = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    status = queue_eval("status", "r1", "--store", "runs", cwd=tmp_path, timeout_s=30)
    assert (status.code, "manifest.json" in status.err) == (73, True), status.err
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_bytes(manifest)
    # a link to another's records, planted when the run is over
    (folder / "results").rename(tmp_path / "others")
    (folder / "results").symlink_to(tmp_path / "others")
    done = queue_eval("finalize", "r1", "--store", "runs", "--no-wait", cwd=tmp_path)
    assert (done.code, "results is a link" in done.err) == (73, True), done.err
    (folder / "results").unlink()
    (chunk,) = (folder / "cases").rglob("*.gz")
    chunk.write_bytes(gzip.compress(b"\0" * 300_000_000, compresslevel=9))
    done = queue_eval("finalize", "r1", "--store", "runs", "--no-wait", cwd=tmp_path)
    assert (done.code, "unfolds to more" in done.err) == (65, True), done.err


def test_what_the_environment_allows_binds_the_file_too(tmp_path: Path, provider: Provider) -> None:
    """As in a pull request, whose eval.yaml is its author's."""
    write_cases(tmp_path, 2)
    path = write_eval(tmp_path, provider.url)

    def run(run_id: str, judges: str, secrets: str) -> Done:
        lists = {"QUEUE_EVAL_ALLOWED_JUDGES": judges, "QUEUE_EVAL_ALLOWED_SECRETS": secrets}
        return queue_eval("run", path, "--run-id", run_id, cwd=tmp_path, timeout_s=60, stdin=None, **lists)

    assert run("r1", provider.url, "JUDGE_API_KEY").code == 0
    asked = provider.requests
    for judges, secrets in (("https://judge.example/v1", "JUDGE_API_KEY"), (provider.url, "OTHER")):
        done = run("r2", judges, secrets)
        assert (done.code, "is not among what" in done.err) == (78, True), done.err
    assert provider.requests == asked


async def test_the_runs_own_redis_is_this_users_alone() -> None:
    """Who may not enter the folder reaches no socket in it; a port there is none."""
    async with product_server() as url:
        socket_path = Path(url.removeprefix("unix://"))
        assert socket_path.parent.stat().st_mode & 0o077 == 0
        assert socket_path.stat().st_mode & 0o077 == 0
        redis = Redis.from_url(url)
        assert redis.config_get("port") == {"port": "0"}
        redis.close()


def test_an_allowed_judge_is_asked_whatever_the_store(tmp_path: Path, provider: Provider, own_redis: Server) -> None:
    enqueued(tmp_path, provider, own_redis, 3)
    (tmp_path / "runs").chmod(0o777)
    refused = queue_eval("worker", "r1", *where(own_redis), cwd=tmp_path)
    assert refused.code == 78
    # the message is what its reader pastes
    export = re.search(r"export (QUEUE_EVAL_ALLOWED_JUDGES=\S+) (QUEUE_EVAL_ALLOWED_SECRETS=\S+)", refused.err)
    assert export, refused.err
    allowed = dict(word.split("=", 1) for word in export.groups())
    assert queue_eval("worker", "r1", *where(own_redis), cwd=tmp_path, timeout_s=60, stdin=None, **allowed).code == 0
    assert results(tmp_path) == 3


def test_workers_that_a_run_starts_are_bound_to_the_judge_of_its_file(
    tmp_path: Path, provider: Provider, elsewhere: Provider
) -> None:
    """The manifest is changed while the run goes on; the worker that is started then does not follow it."""
    provider.latency = always(0.3)
    write_cases(tmp_path, 12)
    path = write_eval(tmp_path, provider.url, workers={"processes": 1, "concurrency": 2, "lease_s": 1})
    run = started("run", path, "--run-id", "r1", cwd=tmp_path)
    wait_until(lambda: results(tmp_path) >= 2, within_s=60)
    change_judge(tmp_path, base_url=elsewhere.url)
    os.kill(workers_of(run.pid)[0], signal.SIGKILL)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 69, err
    assert "QUEUE_EVAL_ALLOWED_JUDGES" in err
    assert elsewhere.requests == 0
