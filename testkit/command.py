"""queue-eval as its users start it: a process of its own, forked from one that has imported everything (testkit/template.py)."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testkit.template import Forked, forked

CANARY = "sk-canary-0123456789abcdef"


@dataclass
class Done:
    code: int
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("REDIS", "QUEUE_EVAL", "GITHUB_SHA"))}
    return {**kept, "JUDGE_API_KEY": CANARY, **more}


def python_path(folder: Path) -> str:
    """With a folder of the test's own in front, and behind it what leads there already: a seeded defect is on that path."""
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


def queue_eval(
    *arguments: str | Path, cwd: Path, timeout_s: float = 120, stdin: str | None = None, **more: str
) -> Done:
    process = forked([*map(str, arguments)], cwd=cwd, environment=environment(**more), stdin=stdin)
    try:
        out, err = process.communicate(timeout=timeout_s)
        return Done(process.wait(), out, err)
    finally:
        process.kill()


def started(*arguments: str | Path, cwd: Path, arm: tuple[str, ...] = (), **more: str) -> Forked:
    """`arm`: a signal that it sends itself, see testkit.signalled."""
    return forked([*map(str, arguments)], cwd=cwd, environment=environment(**more), arm=arm)


def write_cases(folder: Path, count: int, **fields: Any) -> Path:
    """Cases that differ, with a supported and an unsupported answer in turns."""
    path = folder / "cases.jsonl"
    rows: Iterable[dict[str, Any]] = (
        {
            "name": f"case {n}",
            "input": f"What colour has item {n}?",
            "actual_output": f"Item {n} is red." if n % 2 else f"Item {n} is green.",
            "expected_output": f"Item {n} is red.",
            "retrieval_context": [f"Item {n} is red."],
            **fields,
        }
        for n in range(count)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_eval(folder: Path, url: str, **sections: Any) -> Path:
    """An eval.yaml for the given judge; sections replace or add."""
    body: dict[str, Any] = {
        "dataset": "cases.jsonl",
        "metrics": [{"type": "AnswerRelevancyMetric"}, {"type": "FaithfulnessMetric"}],
        "judge": {"type": "openai", "model": "judge-small", "base_url": url, "api_key_env": "JUDGE_API_KEY"},
        "retry": {"base_delay_s": 0.05, "max_delay_s": 0.2, "call_timeout_s": 5},
        "workers": {"processes": 1, "concurrency": 16, "lease_s": 1.5, "grace_s": 5},
        "store": "runs",
        "gate": {"metrics": {"AnswerRelevancy": {"min_mean": 0.5}}},
        **sections,
    }
    path = folder / "eval.yaml"
    path.write_text(json.dumps(body))  # JSON is YAML
    return path


def report(folder: Path, run_id: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((folder / "runs" / run_id / "report.json").read_text())
    return body


def rows(folder: Path, run_id: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "runs" / run_id / "results.jsonl").read_text().splitlines()]
