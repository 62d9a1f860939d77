"""Commands that look at a run and turn it begin at once: a heavy module that comes back into their imports fails here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from queue_eval.cli import status
from queue_eval.limiter.view import LimiterView
from testkit.command import environment, queue_eval, write_cases, write_eval
from testkit.provider.server import Provider
from testkit.redis_server import Server

HEAVY = {"aiohttp", "boto3", "botocore", "deepeval", "fakeredis", "jinja2", "kubernetes", "lupa", "moto", "rich", "rq"}  # fmt: skip
MODELS = {"pydantic", "queue_eval.config.settings", "queue_eval.core.report"}  # as large as all else
OFFLINE = [["--help"], ["--version"], ["status", "--help"], ["abort", "--help"], ["k8s", "logs", "--help"]]  # fmt: skip


def imported_by(*command: str, cwd: Path) -> set[str]:
    """Names of modules and of the packages that they are in, by the interpreter's own account."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "queue_eval", *command],
        cwd=cwd, env=environment(), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "queue_eval.cli.main" in names
    return names | {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("command", OFFLINE, ids=" ".join)
def test_help_imports_nothing_that_takes_time(tmp_path: Path, command: list[str]) -> None:
    assert imported_by(*command, cwd=tmp_path) & (HEAVY | MODELS) == set()


@pytest.mark.parametrize("command", [["--help"], ["--version"]], ids=" ".join)
def test_the_first_help_needs_neither_redis_nor_models(tmp_path: Path, command: list[str]) -> None:
    assert imported_by(*command, cwd=tmp_path) & {"asyncio", "pydantic", "redis", "yaml"} == set()


def test_status_tune_and_abort_import_what_they_use(tmp_path: Path, provider: Provider, own_redis: Server) -> None:
    write_cases(tmp_path, 2)
    limits = {"requests_per_minute": 600}
    place = ["--redis", own_redis.url, "--store", "runs"]
    path = write_eval(tmp_path, provider.url, limits=limits)
    done = queue_eval("enqueue", path, "--run-id", "r1", *place, cwd=tmp_path)
    assert done.code == 0, done.err
    assert imported_by("status", "r1", *place, cwd=tmp_path) & (HEAVY | MODELS) == set()
    assert imported_by("tune", "r1", "--rpm", "60", *place, cwd=tmp_path) & (HEAVY | MODELS) == set()
    assert imported_by("abort", "r1", *place, cwd=tmp_path) & (HEAVY | MODELS) == set()


@pytest.mark.parametrize("judge", ["openai", "lexical"])
def test_a_look_at_a_limiter_and_a_call_through_it_mean_the_same_one(
    tmp_path: Path, provider: Provider, own_redis: Server, judge: str
) -> None:
    write_cases(tmp_path, 2)
    place = ["--redis", own_redis.url, "--store", "runs"]
    settings = {"type": "openai", "model": "m", "base_url": provider.url} if judge == "openai" else {"type": judge}
    path = write_eval(tmp_path, provider.url, judge=settings, limits={"requests_per_minute": 600}, gate={})
    assert queue_eval("enqueue", path, "--run-id", "r1", *place, cwd=tmp_path).code == 0
    status = json.loads(queue_eval("status", "r1", "--json", *place, cwd=tmp_path).out)
    assert status["limiter"]["released"] == 1  # the producer's first question
    assert queue_eval("tune", "r1", "--rpm", "60", *place, cwd=tmp_path).code == 0
    status = json.loads(queue_eval("status", "r1", "--json", *place, cwd=tmp_path).out)
    assert [lane["configured"]["requests"] for lane in status["limiter"]["lanes"]] == [60.0]


async def test_status_without_a_limiter_is_a_status(
    tmp_path: Path, provider: Provider, own_redis: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run's own Redis may end between two questions."""
    write_cases(tmp_path, 2)
    path = write_eval(tmp_path, provider.url, limits={"requests_per_minute": 600})
    place = ["--redis", own_redis.url, "--store", "runs"]
    assert queue_eval("enqueue", path, "--run-id", "r1", *place, cwd=tmp_path).code == 0

    async def reset(_: LimiterView) -> None:
        raise RedisConnectionError("Connection reset by peer")

    monkeypatch.setattr(LimiterView, "stats", reset)
    stats, limiter = await status._stats("r1", str(tmp_path / "runs"), own_redis.url, named=True)
    assert stats
    assert (stats.ready, limiter) == (2, None)
