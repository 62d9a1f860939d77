"""The short form of everything, and its figures against their ranges: `make loadtest`, 15 minutes.

    python -m loadtest [--only headline,skew,peers,growth]

Writes loadtest/out/summary.json; pictures and the parts' own figures lie beside it. Ends with 1 when a part fails or a figure
leaves its range; what the others measured is written all the same. The whole form is each part's own command.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loadtest import growth, headline
from loadtest.parts import add_only
from loadtest.peers import __main__ as peers
from loadtest.ranges import OUT, RANGES, check, written
from loadtest.skew import __main__ as skew

COMPRESS = (5.0, 2.5)  # the headline's judge answers so many times as fast


@dataclass(frozen=True)
class Part:
    measured: Callable[[], Any]
    summary: Callable[[Any], dict[str, Any]]  # the figures by which a reader judges
    keys: tuple[str, ...]  # of the summary


PARTS: dict[str, Part] = {
    "headline": Part(
        lambda: headline.measured(headline.PARTS, compress=COMPRESS),
        lambda f: {"headline": headline.summary(f)},
        ("headline",),
    ),
    "skew": Part(lambda: skew.measured(skew.PARTS, short=True), lambda f: {"skew": skew.summary(f)}, ("skew",)),
    "peers": Part(lambda: peers.measured(short=True), lambda f: {"peers": f}, ("peers",)),
    "growth": Part(lambda: growth.measured(short=True), growth.summary, growth.KEYS),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_only(parser, PARTS)
    args = parser.parse_args()
    found: dict[str, Any] = {}
    started, failed = time.monotonic(), 0
    for name in args.only:
        print(f"== {name} ({time.monotonic() - started:.0f} s)", flush=True)
        try:
            figures = PARTS[name].measured()
        except (SystemExit, AssertionError, LookupError, OSError, ValueError, subprocess.SubprocessError) as end:
            print(f"BAD {name}: {type(end).__name__} {end}", flush=True)
            failed = 1
            continue
        written(name, figures)
        found |= PARTS[name].summary(figures)
    written("summary", found)
    print(f"== ranges ({time.monotonic() - started:.0f} s)", flush=True)
    summary = json.loads((OUT / "summary.json").read_text())
    sys.exit(check(RANGES, summary, only=[key for name in args.only for key in PARTS[name].keys]) or failed)


if __name__ == "__main__":
    main()
