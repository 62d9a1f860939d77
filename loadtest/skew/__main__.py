"""The queue against static shards: by simulation for 4 to 256 workers, and really run with 16 processes.

    python -m loadtest.skew [--short] [--only simulated,real]

The simulation runs the worker's own code in virtual time, on the queue's model; the real run is on Redis. Every figure is a makespan over max(total / workers, longest case).
Writes loadtest/out/skew.json and pictures.
"""

import argparse
import json
import logging
import math
import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from loadtest.parts import add_only
from loadtest.picture import Chart
from loadtest.ranges import OUT, RANGES, check, written
from loadtest.shapes import HALUEVAL, SHAPES, bound_s, guessed
from loadtest.skew import real, shards
from loadtest.skew.simulation import Plan, makespan_s

MEAN_S, CASES_PER_WORKER = 17.28, 40
WORKERS, SHORT_WORKERS = (4, 8, 16, 32, 64, 128, 256), (4, 16)
ERRORS = {"exact": 0.0, "30 % off": 0.3, "twice or half": 0.7, "no idea": math.inf}
DRAWS = 51
BACK_AFTER_S = 30.0  # for a shard's dead worker to be replaced
PARTS = ("simulated", "real")


def drawn(shape: str, workers: int, draw: int = 0) -> tuple[list[float], random.Random]:
    chance = random.Random(f"{shape} {workers}" + (f" {draw}" if draw else ""))
    return SHAPES[shape](CASES_PER_WORKER * workers, MEAN_S, chance), chance


def shards_over_bound(shape: str, workers: int) -> dict[str, float]:
    """By way, the median of DRAWS: how one draw falls into slices is luck."""
    rows = []
    for draw in range(DRAWS):
        spent_s, chance = drawn(shape, workers, draw)
        makespans = shards.makespans_s(spent_s, guessed(spent_s, chance), workers)
        rows.append({way: s / bound_s(spent_s, workers) for way, s in makespans.items()})
    return {way: statistics.median(row[way] for row in rows) for way in shards.WAYS}


def shapes_here() -> Iterator[str]:
    for shape in SHAPES:
        if shape == "real lengths" and not HALUEVAL.is_file():
            print(f"skipped: real lengths, for there is no {HALUEVAL}")
            continue
        yield shape


def sweep(sizes: Sequence[int]) -> dict[str, Any]:
    """By shape, then by way, then by workers. The queue's is of one draw: little of it is luck, and each is a whole run of the worker."""
    rows: dict[str, Any] = {}
    for shape in shapes_here():
        row: dict[str, dict[str, float]] = {way: {} for way in ("queue", *shards.WAYS)}
        for workers in sizes:
            spent_s, chance = drawn(shape, workers)
            weights, bound = guessed(spent_s, chance), bound_s(spent_s, workers)
            queue_s = makespan_s(Plan(spent_s=spent_s, weights=weights, workers=workers))
            for way, over in {"queue": queue_s / bound, **shards_over_bound(shape, workers)}.items():
                row[way][str(workers)] = round(over, 3)
        rows[shape] = row
        print(
            f"{shape}: " + "; ".join(f"{way} {' '.join(map(str, by.values()))}" for way, by in row.items()), flush=True
        )
        chart = Chart(title=f"{shape}: how long a run takes, over what is possible", x="workers", y="makespan / bound", log_x=True, bound=1.0, bound_name="what is possible")  # fmt: skip
        chart.write(OUT / f"skew-{shape.lower().replace(' ', '-')}.svg", {way: [(float(w), y) for w, y in by.items()] for way, by in row.items()})  # fmt: skip
    return rows


def mishaps(workers: int) -> dict[str, Any]:
    """Log-normal: a worker is lost, the last that came; workers are added; weights are wrong."""
    spent_s, chance = drawn("log-normal", workers)
    bound = bound_s(spent_s, workers)
    weights = guessed(spent_s, chance)
    lost_at_s = bound / 2
    lost = {"queue": makespan_s(Plan(spent_s=spent_s, weights=weights, workers=workers, lost_at_s=lost_at_s))}
    worst = {}
    for way, split in shards.WAYS.items():
        whichever = [shards.makespan_with_a_loss_s(split(weights, workers), spent_s, lost=n, lost_at_s=lost_at_s, back_after_s=BACK_AFTER_S) for n in range(workers)]  # fmt: skip
        lost[way], worst[way] = statistics.median(whichever), max(whichever)
    added = {"queue": makespan_s(Plan(spent_s=spent_s, weights=weights, workers=workers, added=[lost_at_s] * workers))}
    added |= shards.makespans_s(spent_s, weights, workers)
    wrong = {}
    for name, error in ERRORS.items():
        shown = guessed(spent_s, chance, error=error)
        wrong[name] = {
            "queue": makespan_s(Plan(spent_s=spent_s, weights=shown, workers=workers)),
            "packed by weight": shards.makespan_s(shards.packed(shown, workers), spent_s),
        }
    figures = {
        "a worker is lost for good half-way": lost,
        "the worst one is lost": worst,
        "as many again come half-way": added,
    } | {f"weights: {name}": row for name, row in wrong.items()}
    rounded = {name: {way: round(s / bound, 3) for way, s in row.items()} for name, row in figures.items()}
    for name, row in rounded.items():
        print(f"{workers} workers, {name}: {row}", flush=True)
    return rounded


def measured(parts: tuple[str, ...], *, short: bool) -> dict[str, Any]:
    logging.getLogger("queue_eval").setLevel(logging.ERROR)  # simulated workers lose simulated leases
    figures: dict[str, Any] = {}
    if "simulated" in parts:
        figures["simulated"] = sweep(SHORT_WORKERS if short else WORKERS)
        figures["mishaps"] = mishaps(16)
    if "real" in parts:
        figures["real"], busy = real.measured("log-normal", cases=320, mean_s=2.0 if short else 6.0)
        chart = Chart(
            title="16 processes a way, log-normal cases: who is busy", x="seconds", y="busy workers", stepped=True
        )
        chart.write(OUT / "skew-busy.svg", busy)
        print(json.dumps(figures["real"]), flush=True)
    if "real" in parts and not short:
        figures["real_others"] = []
        for shape in (shape for shape in shapes_here() if shape != "log-normal"):
            figures["real_others"].append(real.measured(shape, cases=320, mean_s=2.0)[0])
            print(json.dumps(figures["real_others"][-1]), flush=True)
    return figures


def summary(figures: dict[str, Any]) -> dict[str, Any]:
    """What is held against the ranges. `shards`: round-robin, as `worker --shard-index` deals a file of cases."""
    found: dict[str, Any] = {
        name: figures.get(of) for name, of in (("simulated_over_bound", "simulated"), ("mishaps_over_bound", "mishaps"))
    }
    if "real" in figures:
        over = figures["real"]["over_bound"]
        found |= {"queue_over_bound": over["queue"], "shards_over_bound": over["round-robin"]}
        found |= {"contiguous_over_bound": over["contiguous"], "packed_over_bound": over["packed by weight"]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--short",
        action="store_true",
        help="4 and 16 workers; really run only log-normal cases, in a third of the time",
    )
    add_only(parser, PARTS)
    args = parser.parse_args()
    figures = measured(args.only, short=args.short)
    written("skew", figures)
    sys.exit(check(RANGES, {"skew": summary(figures)}, only=["skew"], partly=args.only != PARTS))


if __name__ == "__main__":
    main()
