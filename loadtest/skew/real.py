"""Sixteen processes of one case at a time on the queue, beside sixteen of which each has its fixed slice: `worker --shard-index`."""

import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from loadtest.measured import surroundings
from loadtest.paced import paced, write_paced
from loadtest.redis_server import serving
from loadtest.shapes import bound_s, guessed, log_normal
from loadtest.whole_run import Span, makespan_s, occupancy, spans
from loadtest.workload import write_eval

WAYS = ("queue", "shards")
WORKERS, SPREAD, SEED = 16, 1.0, 3


def measured(*, cases: int, mean_s: float) -> tuple[dict[str, Any], dict[str, list[tuple[float, float]]]]:
    """The figures, and for a picture the workers that are busy by the second."""
    chance = random.Random(SEED)
    spent_s = log_normal(cases, mean_s, chance, spread=SPREAD)
    told, bound = guessed(spent_s, chance), bound_s(spent_s, WORKERS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with paced(write_paced(folder, spent_s, told)) as judge:
            path = write_eval(
                folder,
                judge={"type": "openai", "model": "m", "base_url": judge.url},
                workers={"concurrency": 1, "straggler_times": 0},
            )
            found = _both(path, cases)
    taken_s = {way: makespan_s(some) for way, some in found.items()}
    figures = {
        "cases": cases, "workers": WORKERS, "mean_s": mean_s, "bound_s": round(bound, 1), "queue_s": round(taken_s["queue"], 1),
        "shards_s": round(taken_s["shards"], 1), "queue_over_bound": round(taken_s["queue"] / bound, 4),
        "shards_over_bound": round(taken_s["shards"] / bound, 4),
    }  # fmt: skip
    return figures, {way: _busy(some, max(taken_s.values())) for way, some in found.items()}


def _both(path: Path, cases: int) -> dict[str, list[Span]]:
    """Side by side, on the same judge and machine: 32 processes, which mostly wait."""
    with serving() as one, serving() as other:  # so that neither way waits for the other
        servers = dict(zip(WAYS, (one, other), strict=True))
        started = {way: _workers(way, server.url, path.parent) for way, server in servers.items()}
        # everybody is there before there is anything to do
        for way, server in servers.items():
            _end(_command("enqueue", str(path), "--run-id", way, *_where(server.url), folder=path.parent))
        for worker in (worker for workers in started.values() for worker in workers):
            _end(worker)
    found = {way: spans(path.parent / "runs" / way) for way in started}
    if any(len(scored) != cases for scored in found.values()):
        raise SystemExit(f"of {cases} cases were scored: { {way: len(scored) for way, scored in found.items()} }")
    return found


def _where(redis_url: str) -> list[str]:
    return ["--redis", redis_url, "--store", "runs"]


def _workers(way: str, redis_url: str, folder: Path) -> "list[subprocess.Popen[str]]":
    shard = [["--shard-index", str(n), "--total-shards", str(WORKERS)] if way == "shards" else [] for n in range(WORKERS)]  # fmt: skip
    return [_command("worker", way, *_where(redis_url), *one, "--wait-s", "180", folder=folder) for one in shard]


def _command(*words: str, folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "queue_eval", *words]
    return subprocess.Popen(
        command, cwd=folder, env=surroundings(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def _end(process: "subprocess.Popen[str]") -> None:
    out, _ = process.communicate(timeout=900)
    if process.returncode:
        raise SystemExit(f"a command ended with {process.returncode}: {out[-2000:]}")


def _busy(some: list[Span], until_s: float) -> list[tuple[float, float]]:
    return occupancy(some, first=min(span.started_at for span in some), until_s=until_s)
