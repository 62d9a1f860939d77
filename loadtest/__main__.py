"""The short form of everything, and its figures against their ranges: `make loadtest`, about a quarter of an hour.

    python -m loadtest [--only headline,skew,peers,growth]

Writes loadtest/out/summary.json; pictures and the parts' own figures lie beside it. Ends with 1 when a figure leaves its
range. The whole form is each part's own command.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

from loadtest import growth, headline
from loadtest.peers import __main__ as peers
from loadtest.ranges import RANGES, check, written
from loadtest.skew import __main__ as skew

COMPRESS = 7.0  # the headline's judge answers so many times as fast; for 288 in flight four times

PARTS: dict[str, Callable[[], Any]] = {
    "headline": lambda: headline.measured(headline.PARTS, compress=COMPRESS),
    "skew": lambda: skew.measured(skew.PARTS, short=True),
    "peers": lambda: peers.measured(short=True),
    "growth": lambda: growth.measured(short=True),
}


def summary(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures by which a reader judges, flat."""
    found: dict[str, Any] = {}
    if "headline" in figures:
        head = figures["headline"]
        found["headline"] = {
            "compress_72": head["72"]["compress"],
            "compress_288": head["288"]["compress"],
            "ratio_72": head["72"]["ratio"],
            "ratio_288": head["288"]["ratio"],
            "rss_mb": head["72"]["rss_mb"],
            "rate_limited_ratio": head["limited"]["ratio"],
            "count_429": head["limited"]["count_429"],
        }
    if "skew" in figures:
        found["skew"] = {name: figures["skew"]["real"][name] for name in ("queue_over_bound", "shards_over_bound")}
    if "peers" in figures:
        told = ("name", "cases_per_s", "cpu_ms_per_case", "rss_mb")
        found["peers"] = [{name: row[name] for name in told} for row in figures["peers"]]
    if "growth" in figures:
        found["growth"] = figures["growth"]["by_cases"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    args = parser.parse_args()
    started, figures = time.monotonic(), {}
    for part in args.only.split(","):
        print(f"== {part} ({time.monotonic() - started:.0f} s)", flush=True)
        figures[part] = PARTS[part]()
    written("summary", summary(figures))
    print(f"== ranges ({time.monotonic() - started:.0f} s)", flush=True)
    by_name = {row["name"]: row for row in figures.get("peers", [])}
    sys.exit(check(RANGES, {**figures, "peers": by_name}))


if __name__ == "__main__":
    main()
