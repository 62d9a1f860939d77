"""Sixteen processes of one case at a time on the queue, then three times sixteen that have their cases from the start: `worker --shard-index`."""

import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.paced import paced, write_spent, write_texts
from loadtest.shapes import SHAPES, bound_s, guessed
from loadtest.skew import shards
from loadtest.whole_run import Span, makespan_s, occupancy, spans
from testkit.measured import surroundings
from testkit.redis_server import serving
from testkit.workload import write_eval

WORKERS, DRAWS = 16, 200
FILLER_WEIGHT = 0.01


@dataclass(frozen=True)
class Draw:
    spent_s: list[float]
    weights: list[float]  # 30 % off

    def shards_over_bound(self) -> dict[str, float]:
        bound = bound_s(self.spent_s, WORKERS)
        return {way: s / bound for way, s in shards.makespans_s(self.spent_s, self.weights, WORKERS).items()}


def usual(shape: str, cases: int, mean_s: float) -> tuple[Draw, dict[str, float]]:
    """Of many draws the one whose shards come nearest to what shards take in the median; and those medians, over the bound."""
    draws = []
    for seed in range(DRAWS):
        chance = random.Random(seed)
        spent_s = SHAPES[shape](cases, mean_s, chance)
        draws.append(Draw(spent_s, guessed(spent_s, chance)))
    found = [draw.shards_over_bound() for draw in draws]
    medians = {way: statistics.median(ratios[way] for ratios in found) for way in shards.WAYS}
    off = [sum(abs(ratios[way] / medians[way] - 1) for way in medians) for ratios in found]
    return draws[off.index(min(off))], medians


def measured(shape: str, *, cases: int, mean_s: float) -> tuple[dict[str, Any], dict[str, list[tuple[float, float]]]]:
    """The figures, and for a picture the workers that are busy by the second."""
    draw, medians = usual(shape, cases, mean_s)
    bound = bound_s(draw.spent_s, WORKERS)
    with tempfile.TemporaryDirectory() as name:
        found = _all_ways(draw, Path(name))
    taken_s = {way: makespan_s(some) for way, some in found.items()}
    figures = {
        "shape": shape, "cases": cases, "workers": WORKERS, "mean_s": mean_s, "bound_s": round(bound, 1),
        "makespan_s": {way: round(s, 1) for way, s in taken_s.items()},
        "over_bound": {way: round(s / bound, 4) for way, s in taken_s.items()},
        "this_draw_by_arithmetic": {way: round(ratio, 4) for way, ratio in draw.shards_over_bound().items()},
        f"median_of_{DRAWS}_draws_by_arithmetic": {way: round(ratio, 4) for way, ratio in medians.items()},
    }  # fmt: skip
    return figures, {way: _busy(some, max(taken_s.values())) for way, some in found.items()}


def _all_ways(draw: Draw, folder: Path) -> dict[str, list[Span]]:
    """The queue by itself, then the shards beside each other: they mostly wait, and no one's end is another's matter."""
    orders = {way: shards.dealt(split(draw.weights, WORKERS)) for way, split in shards.WAYS.items()}
    fillers = max(order.count(None) for order in orders.values())
    spent_s, weights = [*draw.spent_s, *[0.0] * fillers], [*draw.weights, *[FILLER_WEIGHT] * fillers]
    cases = len(draw.spent_s)
    with paced(write_spent(folder, spent_s)) as judge:
        found: dict[str, list[Span]] = {}
        for ways in ({"queue": list(range(cases))}, orders):
            for way, order in ways.items():
                _write(folder / way, weights, order, judge.url)
            found |= _worked([folder / way for way in ways])
    names = {f"case {n}" for n in range(cases)}
    # a filler takes the judge no time and stands in no figure
    scored = {way: [span for span in some if span.case in names] for way, some in found.items()}
    if any(len(some) != cases for some in scored.values()):
        raise SystemExit(f"of {cases} cases were scored: { {way: len(some) for way, some in scored.items()} }")
    return scored


def _write(folder: Path, weights: Sequence[float], order: Sequence[int | None], url: str) -> None:
    """Where a shard has no case left, a filler keeps the others' places."""
    folder.mkdir()
    fillers = iter(range(sum(position is not None for position in order), len(weights)))
    write_texts(folder, weights, [next(fillers) if position is None else position for position in order])
    judge = {"type": "openai", "model": "m", "base_url": url}
    write_eval(folder, judge=judge, workers={"concurrency": 1, "straggler_times": 0})


def _worked(folders: Sequence[Path]) -> dict[str, list[Span]]:
    with serving() as server:
        # all are there before there is anything to do
        workers = [worker for folder in folders for worker in _workers(folder, server.url)]
        for folder in folders:
            _end(_command("enqueue", "eval.yaml", "--run-id", _run_id(folder), *_where(server.url), folder=folder))
        for worker in workers:
            _end(worker)
    return {folder.name: spans(folder / "runs" / _run_id(folder)) for folder in folders}


def _run_id(folder: Path) -> str:
    """Of the way whose folder it is; a run's id has no space."""
    return folder.name.replace(" ", "-")


def _where(redis_url: str) -> list[str]:
    return ["--redis", redis_url, "--store", "runs"]


def _workers(folder: Path, redis_url: str) -> "list[subprocess.Popen[str]]":
    shard = [[] if folder.name == "queue" else ["--shard-index", str(n), "--total-shards", str(WORKERS)] for n in range(WORKERS)]  # fmt: skip
    return [
        _command("worker", _run_id(folder), *_where(redis_url), *one, "--wait-timeout", "180", folder=folder)
        for one in shard
    ]


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
