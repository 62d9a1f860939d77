"""The README word for word, from a fresh folder: its commands, its eval.yaml, and what init writes."""

import re
import shlex
from pathlib import Path

from testkit.command import queue_eval
from testkit.measured import ROOT
from testkit.provider.server import Provider

README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(heading: str) -> list[list[str]]:
    """The lines of the first block under a heading, without their comments."""
    block = re.findall(rf"## {heading}.*?```\n(.*?)```", README, re.DOTALL)[0]
    return [shlex.split(line, comments=True) for line in block.splitlines()]


def run(words: list[str], folder: Path, code: int = 0) -> str:
    assert words[0].endswith("queue-eval"), words
    done = queue_eval(*words[1:], cwd=folder)
    assert done.code == code, f"{words}: {done.err}"
    return done.out


def test_your_own_cases(tmp_path: Path) -> None:
    for words in commands("Your own cases"):
        run(words, tmp_path)
    assert list((tmp_path / "my-eval" / "runs").glob("*/report.html"))


def test_the_readmes_eval_yaml_runs_on_the_cases_that_init_writes(tmp_path: Path, provider: Provider) -> None:
    init, evaluate = commands("Your own cases")
    run(init, tmp_path)
    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert "http://127.0.0.1:8900/v1" in text
    path = tmp_path / "my-eval" / "eval.yaml"
    path.write_text(text.replace("http://127.0.0.1:8900/v1", provider.url), encoding="utf-8")
    printed = run(evaluate, tmp_path)
    assert "Correctness" in printed
    (folder,) = (tmp_path / "my-eval" / "runs").iterdir()
    store = ["--store", "my-eval/runs"]
    run(["queue-eval", "status", folder.name, *store], tmp_path)
    run(["queue-eval", "retry", folder.name, *store], tmp_path)
    run(["queue-eval", "run", "--resume", folder.name, *store], tmp_path)


def test_what_init_has_commented_out_may_be_taken_in(tmp_path: Path) -> None:
    run(["queue-eval", "init", "e"], tmp_path)
    path = tmp_path / "e" / "eval.yaml"
    text = path.read_text(encoding="utf-8")
    text = text.replace("  # - type: GEval", "  - type: GEval")
    for name in ("name: Correctness", "criteria:", "evaluation_params:"):
        text = text.replace(f"  #   {name}", f"    {name}")
    for name in ("limits:", "workers:"):
        text = text.replace(f"# {name} {{", f"{name} {{")
    path.write_text(text, encoding="utf-8")
    assert "Correctness" in run(["queue-eval", "run", "e/eval.yaml"], tmp_path)
