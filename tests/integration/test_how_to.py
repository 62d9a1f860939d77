"""The blocks of docs/how-to/, as a reader types them with names of his own in their places."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from deepeval.test_case import LLMTestCase

from testkit.command import environment, queue_eval, write_cases, write_eval
from testkit.measured import ROOT
from testkit.must_have import missing
from testkit.redis_server import Server

LEXICAL = {"type": "lexical"}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs/how-to" / f"{page}.md").read_text(), re.DOTALL)


def typed(block: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """With the command of this environment."""
    path = f"{ROOT / '.venv/bin'}:{environment()['PATH']}"
    return subprocess.run(
        ["bash", "-e", "-c", block], cwd=folder, env=environment(PATH=path, **variables), capture_output=True, text=True, timeout=90, check=False
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With an eval.yaml and its cases."""
    write_cases(tmp_path, 4)
    write_eval(tmp_path, "unused", judge=LEXICAL)
    return tmp_path


def test_run_on_several_machines(folder: Path, own_redis: Server) -> None:
    first, allowing = blocks("run-on-several-machines", "bash")
    done = typed(first.replace("redis://HOST:6379", own_redis.url).replace("/mnt/evals", "shared"), folder)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "shared/nightly/report.json").read_text())["accounting"]["scored"] == 4
    assert typed(f"{allowing}\nqueue-eval validate eval.yaml", folder).returncode == 0


def test_choose_workers(folder: Path, own_redis: Server) -> None:
    (block,) = blocks("choose-workers", "bash")
    alone, shared = block.splitlines()
    assert typed(alone, folder).returncode == 0
    where = ["--redis", own_redis.url, "--store", "runs"]
    assert queue_eval("enqueue", "eval.yaml", "--run-id", "r1", *where, cwd=folder).code == 0
    words = shared.replace("RUN", "r1").replace("URL", own_redis.url).replace("STORE", "runs")
    done = typed(words, folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ["choose-limits", "debug-a-failed-run"])
def test_look_at_a_run_and_turn_it(folder: Path, own_redis: Server, page: str) -> None:
    if page.startswith("debug") and not shutil.which("jq"):
        missing("jq")
    assert (
        queue_eval("enqueue", "eval.yaml", "--run-id", "r1", cwd=folder, QUEUE_EVAL_REDIS_URL=own_redis.url).code == 0
    )
    if page.startswith("debug"):
        assert queue_eval("worker", "r1", cwd=folder, QUEUE_EVAL_REDIS_URL=own_redis.url).code == 0
        assert queue_eval("finalize", "r1", cwd=folder, QUEUE_EVAL_REDIS_URL=own_redis.url).code == 0
        (folder / "runs/r1/logs").mkdir(exist_ok=True)
        (folder / "runs/r1/logs/worker-1.log").write_text(
            '{"time": "t", "level": "error", "event": "e", "message": "m"}\n'
        )
    for block in blocks(page, "bash"):
        # a run that is not over is watched until it is
        words = block.replace("RUN", "r1").replace(" --watch", "")
        done = typed(words, folder, QUEUE_EVAL_REDIS_URL=own_redis.url)
        assert done.returncode == 0, (words, done.stderr)


def test_gate_a_pull_request(folder: Path, own_redis: Server) -> None:
    (gate,) = blocks("gate-a-pull-request", "yaml")
    write_eval(folder, "unused", judge=LEXICAL, **yaml.safe_load(gate))
    (block,) = blocks("gate-a-pull-request", "bash")
    done = typed(block, folder, REDIS_URL=own_redis.url)
    assert done.returncode in (0, 1), done.stderr  # the bounds are the page's, and the answers half of them invented
    assert "verdict: " in done.stdout


def test_migrate_from_deepeval(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (block,) = blocks("migrate-from-deepeval", "python")
    case = LLMTestCase(input="q", actual_output="a", expected_output="a", retrieval_context=["a is so"])
    exec(block, {"test_cases": [case, case]})
    page = (ROOT / "docs/how-to/migrate-from-deepeval.md").read_text()
    metrics = [row for row in re.findall(r"\| `(\{type.*?\})` \|", page) if "my_package" not in row]
    judges = [row for row in re.findall(r"\| `judge: (\{type.*?\})` \|", page) if "my_package" not in row]
    assert (len(metrics), len(judges)) == (3, 2)
    for judge in judges:
        text = f"dataset: my-eval/cases.jsonl\nmetrics: [{', '.join(metrics)}]\njudge: {judge}\n"
        (folder / "eval.yaml").write_text(text)
        done = queue_eval("validate", "eval.yaml", cwd=folder, OPENAI_API_KEY="k")
        assert (done.code, "good; 2 cases" in done.out) == (0, True), done.err
