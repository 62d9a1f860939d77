"""What an attacker would try, beside the tests of escaping, paths and secrets in test_run.py."""

import ast
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from loadtest.provider.server import Provider
from loadtest.provider.wire import always
from loadtest.redis_server import Server
from loadtest.waiting import wait_until
from tests.integration.test_shared_redis import enqueued, results, where
from tests.support.command import CANARY, queue_eval, report, started, write_cases, write_eval

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
    """The line of docs/redis-users.acl for a role, without its name and password."""
    lines = (ROOT / "docs" / "redis-users.acl").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"user {role} ")]
    return [word for word in line.split()[2:] if not word.startswith(("on", ">"))]


def test_the_documented_redis_users_suffice_and_may_no_more(
    tmp_path: Path, provider: Provider, own_redis: Server
) -> None:
    admin = Redis.from_url(own_redis.url)
    admin.config_set("maxmemory-policy", "noeviction")
    for role in ("qe-producer", "qe-worker"):
        admin.execute_command("ACL", "SETUSER", role, "on", f">{role}-pw", *acl(role))  # type: ignore[no-untyped-call]

    def place(role: str) -> list[str]:
        return ["--redis", own_redis.url.replace("unix://", f"unix://{role}@"), "--store", "runs"]

    write_cases(tmp_path, 8)
    path = write_eval(tmp_path, provider.url, limits={"requests_per_minute": 6000})
    secret = {"QUEUE_EVAL_REDIS_PASSWORD": "qe-producer-pw"}
    done = queue_eval("enqueue", path, "--run-id", "r1", *place("qe-producer"), cwd=tmp_path, **secret)  # type: ignore[arg-type]
    assert done.code == 0, done.err
    worker = queue_eval("worker", "r1", *place("qe-worker"), cwd=tmp_path, QUEUE_EVAL_REDIS_PASSWORD="qe-worker-pw")
    assert worker.code == 0, worker.err
    for verb in (("status",), ("finalize",)):
        done = queue_eval(*verb, "r1", *place("qe-producer"), cwd=tmp_path, **secret)  # type: ignore[arg-type]
        assert done.code == 0, done.err
    assert report(tmp_path, "r1")["accounting"]["scored"] == 8
    for role in ("qe-producer", "qe-worker"):
        redis = Redis.from_url(own_redis.url, username=role, password=f"{role}-pw")
        for forbidden in (
            ("FLUSHALL",),
            ("CONFIG", "GET", "*"),
            ("KEYS", "*"),
            ("SCAN", "0"),
            ("GET", "somebody-elses"),
            ("SET", "somebody-elses", "1"),
            ("EVAL", "return redis.call('GET', 'somebody-elses')", "0"),
            ("ACL", "WHOAMI"),
            ("SHUTDOWN",),
            ("SCRIPT", "FLUSH"),
            ("CLIENT", "LIST"),
            ("MONITOR",),
        ):
            with pytest.raises(ResponseError, match=r"no permissions|can't (run|access)"):
                redis.execute_command(*forbidden)  # type: ignore[no-untyped-call]
