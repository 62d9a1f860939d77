"""The comparison: score, reason, success and error of every metric on every case."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from loadtest.parity.metrics import CONVERSATIONAL, REASON_VARIES, SINGLE
from loadtest.stock_environment import stock_environment
from testkit.measured import ROOT

JUDGE = {"type": "import", "path": "loadtest.parity.model:HashJudge"}
Results = dict[tuple[str, int], dict[str, Any]]  # by metric and case


def single_case(n: int) -> dict[str, Any]:
    call = {"name": ("search", "book")[n % 2], "description": "finds", "input_parameters": {"place": f"town {n}"}}
    return {
        "name": f"case {n}",
        "input": f"Where is town {n}?",
        "actual_output": f"{'answer' if n % 3 else 'reply'} {n}: it lies by a river.",
        "expected_output": f"answer {n}: it lies by a river.",
        "context": [f"Town {n} lies by a river.", "Rivers flow."],
        "retrieval_context": [f"Town {n} lies by a river.", f"Town {n} has a church."],
        "tools_called": [call],
        "expected_tools": [call if n % 3 else {"name": "search"}],
    }


def conversation(n: int) -> dict[str, Any]:
    contexts = [f"Town {n} lies by a river."]
    return {
        "name": f"case {n}",
        "turns": [
            {"role": "user", "content": f"Where is town {n}?"},
            {
                "role": "assistant",
                "content": "By a river.",
                "retrieval_context": contexts,
                "tools_called": [{"name": "search"}],
            },
            {"role": "user", "content": "Which one?"},
            {"role": "assistant", "content": f"The {n}th.", "retrieval_context": contexts},
        ],
        "scenario": "somebody asks for a town",
        "expected_outcome": "the town is found",
        "chatbot_role": "a guide",
    }


def compared(folder: Path, cases: int) -> dict[str, list[str]]:
    """What differs, by metric; an empty list where nothing does."""
    differences: dict[str, list[str]] = {}
    for kind in ("single", "conversational"):
        ours, stock = _ours(folder / kind, kind, cases), _stock(folder / kind, kind, cases)
        for metric in SINGLE if kind == "single" else CONVERSATIONAL:
            differences[metric] = [
                f"case {n}: queue-eval {ours.get((metric, n))}, DeepEval {stock.get((metric, n))}"
                for n in range(cases)
                if _differ(metric, ours.get((metric, n)), stock.get((metric, n)))
            ]
    return differences


def _differ(metric: str, ours: dict[str, Any] | None, stock: dict[str, Any] | None) -> bool:
    if ours is None or stock is None:
        return True
    varies = {"reason"} if metric in REASON_VARIES else set()
    return any(ours[what] != stock[what] for what in ours.keys() - varies)


def _rows(kind: str, cases: int) -> list[dict[str, Any]]:
    return [single_case(n) if kind == "single" else conversation(n) for n in range(cases)]


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, **stock_environment(folder), "PYTHONPATH": str(ROOT)}


def _ours(folder: Path, kind: str, cases: int) -> Results:
    folder.mkdir(parents=True)
    served = SINGLE if kind == "single" else CONVERSATIONAL
    metrics = [{"type": name, "name": name, "threshold": 0.5, **one.parameters} for name, one in served.items()]
    (folder / "cases.jsonl").write_text("\n".join(map(json.dumps, _rows(kind, cases))))
    settings = {"dataset": "cases.jsonl", "metrics": metrics, "judge": JUDGE, "store": "runs", "gate": {}}
    (folder / "eval.yaml").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "queue_eval", "run", "eval.yaml", "--run-id", "r", "--workers", "2"]
    done = subprocess.run(command, cwd=folder, env=_environment(folder), capture_output=True, text=True, check=False)
    if done.returncode not in (0, 2):
        raise SystemExit(f"queue-eval run: {done.returncode}\n{done.stdout}\n{done.stderr}")
    found: Results = {}
    for line in (folder / "runs" / "r" / "results.jsonl").read_text().splitlines():
        row = json.loads(line)
        for name, metric in row.get("metrics", {}).items():
            found[name, int(row["name"].split()[1])] = _outcome(
                metric["score"], metric["passed"], metric["reason"], metric["error"]
            )
    return found


def _stock(folder: Path, kind: str, cases: int) -> Results:
    """In a process of its own, as a user's script is."""
    command = [sys.executable, "-m", "loadtest.parity.stock", kind]
    rows = json.dumps(_rows(kind, cases))
    done = subprocess.run(
        command, input=rows, env=_environment(folder), cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"evaluate(): {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    shown = json.loads(done.stdout.splitlines()[-1])
    return {(name, case): _outcome(*figures) for name, case, *figures in shown}


def _outcome(
    score: float | None,
    passed: bool | None,  # noqa: FBT001 - as DeepEval has it
    reason: str | None,
    error: str | None,
) -> dict[str, Any]:
    """That both failed, and not in which words."""
    return {
        "score": None if score is None or error else round(score, 9),
        "passed": None if error else passed,
        "reason": None if error else reason or None,
        "failed": bool(error),
    }
