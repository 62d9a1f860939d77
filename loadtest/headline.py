"""5,000 cases that take 24 hours one after the other: how near a whole run comes to what the judge allows.

    python -m loadtest.headline [--compress 1,1] [--only 72,288,limited]

The judge takes 17.28 s a case on average, log-normal with a heavy tail; the producer knows only the texts, whose length
shows it but for an error of 30 %. `--compress F,G` divides the judge's times by F for 72 in flight and by G for 288, and nothing else:
start-up and our own work weigh so many times as much. The bound is max(total / in flight, longest case); under a rate limit it is calls / rate.
Writes loadtest/out/headline.json and a picture of the cases in flight.
"""

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from loadtest.paced import CALLS_OF_A_CASE, paced, write_paced
from loadtest.parts import add_only
from loadtest.picture import Chart
from loadtest.ranges import OUT, RANGES, check, written
from loadtest.shapes import bound_s, guessed, log_normal
from loadtest.whole_run import WholeRun, makespan_s, occupancy, whole_run
from testkit.workload import write_eval

CASES, MEAN_S = 5000, 17.28
LIMITED_CASES, CALLS_PER_MINUTE = 700, 4200
PARTS = ("72", "288", "limited")


def prepared(folder: Path, count: int, mean_s: float) -> list[float]:
    """The seconds that the judge takes for each case, in all."""
    chance = random.Random(7)
    spent_s = log_normal(count, mean_s, chance)
    write_paced(folder, spent_s, guessed(spent_s, chance))
    return spent_s


def in_flight(workers: int, each: int, compress: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder, cases = Path(name), workers * each
        spent_s = prepared(folder, CASES, MEAN_S / compress)
        bound = bound_s(spent_s, cases)
        with paced(folder / "spent.json") as judge:
            path = write_eval(folder, judge={"type": "openai", "model": "m", "base_url": judge.url})
            run = whole_run(path, workers=workers, concurrency=each)
            stats = judge.stats()
        if len(run.spans) != CASES or set(stats["statuses"]) != {"200"}:
            sys.exit(f"{len(run.spans)} of {CASES} cases scored, answers {stats['statuses']}")
        _draw(run, cases, compress)
        took_s = makespan_s(run.spans)
        return {
            "in_flight": cases, "workers": workers, "compress": compress, "bound_s": round(bound, 1), "longest_s": round(max(spent_s), 1),
            "makespan_s": round(took_s, 1), "wall_s": round(run.wall_s, 1), "ratio": round(took_s / bound, 4), "rss_mb": round(run.rss_mb),
        }  # fmt: skip


def limited(count: int) -> dict[str, Any]:
    """The judge admits so many calls a minute and refuses the rest."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared(folder, count, 1.0)
        with paced(folder / "spent.json", per_minute=CALLS_PER_MINUTE) as judge:
            path = write_eval(
                folder,
                judge={"type": "openai", "model": "m", "base_url": judge.url},
                limits={"requests_per_minute": CALLS_PER_MINUTE},
            )
            run = whole_run(path, workers=2, concurrency=72)
            stats = judge.stats()
        calls = stats["admitted"]
        if len(run.spans) != count or calls < CALLS_OF_A_CASE * count:
            sys.exit(f"{len(run.spans)} of {count} cases scored, with {calls} calls")
        bound, took_s = calls / CALLS_PER_MINUTE * 60, makespan_s(run.spans)
        return {
            "calls": calls, "per_minute": CALLS_PER_MINUTE, "bound_s": round(bound, 1), "makespan_s": round(took_s, 1),
            "ratio": round(took_s / bound, 4), "count_429": len(stats["refused_at"]), "rss_mb": round(run.rss_mb),
        }  # fmt: skip


def _draw(run: WholeRun, cases: int, compress: float) -> None:
    workers = sorted({span.worker for span in run.spans})
    parts = {f"worker {n}": [s for s in run.spans if s.worker == one] for n, one in enumerate(workers, 1)}
    if len(workers) > 1:
        parts = {"all workers": run.spans, **parts}
    first, until_s = min(span.started_at for span in run.spans), makespan_s(run.spans)
    series = {name: occupancy(part, first=first, until_s=until_s) for name, part in parts.items()}
    title = f"{CASES:,} cases, 24 hours of judge time{f' compressed {compress:g} times' if compress != 1 else ''}, {cases} in flight"
    chart = Chart(
        title=title, x="seconds", y="cases in flight", stepped=True, bound=cases, bound_name=f"{cases} at most"
    )
    chart.write(OUT / f"occupancy-{cases}.svg", series)


def measured(parts: tuple[str, ...], *, compress: tuple[float, float]) -> dict[str, Any]:
    """`compress` for 72 in flight and for 288, where four times as many cases end in a second."""
    figures: dict[str, Any] = {}
    if "72" in parts:
        figures["72"] = in_flight(1, 72, compress[0])
        print(json.dumps(figures["72"]), flush=True)
    if "288" in parts:
        figures["288"] = in_flight(4, 72, compress[1])
        print(json.dumps(figures["288"]), flush=True)
    if "limited" in parts:
        figures["limited"] = limited(LIMITED_CASES)
        print(json.dumps(figures["limited"]), flush=True)
    return figures


def summary(figures: dict[str, Any]) -> dict[str, Any]:
    """What is held against the ranges."""
    shown = {
        "72": {"compress": "compress_72", "ratio": "ratio_72", "rss_mb": "rss_mb"},
        "288": {"compress": "compress_288", "ratio": "ratio_288"},
        "limited": {"ratio": "rate_limited_ratio", "count_429": "count_429"},
    }
    return {name: figures[part][key] for part, keys in shown.items() if part in figures for key, name in keys.items()}


def _compress(text: str) -> tuple[float, float]:
    first, second = text.split(",") if "," in text else (text, text)
    times = float(first), float(second)
    if min(times) <= 0:
        raise ValueError(text)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compress", type=_compress, default=(1.0, 1.0), metavar="F,G")
    add_only(parser, PARTS)
    args = parser.parse_args()
    figures = measured(args.only, compress=args.compress)
    written("headline", figures)
    sys.exit(check(RANGES, {"headline": summary(figures)}, only=["headline"], partly=args.only != PARTS))


if __name__ == "__main__":
    main()
