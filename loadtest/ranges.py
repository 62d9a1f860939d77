"""Figures against the ranges that a file allows them: python -m loadtest.ranges [SUMMARY.json]"""

import argparse
import json
import sys
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent / "out"
RANGES = Path(__file__).parent / "ranges.toml"


def written(name: str, figures: Any) -> None:
    """To be read later; git ignores the folder."""
    OUT.mkdir(exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")


def check(path: Path, figures: dict[str, Any], *, only: Collection[str] | None = None, partly: bool = False) -> int:
    """1 when a figure leaves its range or is missing, else 0.

    `only`: the parts that were to be measured, otherwise all of the file's. `partly`: figures of theirs may be missing on
    purpose, and are named.
    """
    bad = 0
    for part, allowed in tomllib.loads(path.read_text()).items():
        if only is not None and part not in only:
            continue
        for name, bounds in allowed.items():
            value = _at(figures.get(part), name.split("/"))
            if value is None and partly:
                print(f"not measured: {part} {name}")
                continue
            if unknown := bounds.keys() - {"min", "max"}:
                raise SystemExit(f"{path}: {part} {name}: {min(unknown)!r} is no bound; use min and max")
            least, most = bounds.get("min", float("-inf")), bounds.get("max", float("inf"))
            good = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
            bad += not good
            print(f"{'ok ' if good else 'BAD'} {part} {name}: {value}, allowed {least:g} to {most:g}")
    return 1 if bad else 0


def _at(tree: Any, path: list[str]) -> Any:
    """Of a list the row of that name, or of so many cases."""
    for name in path:
        if isinstance(tree, list):
            tree = {str(row.get("name", row.get("cases"))): row for row in tree}
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("summary", type=Path, nargs="?", default=OUT / "summary.json")
    summary: Path = parser.parse_args().summary
    if not summary.is_file():
        sys.exit(f"{summary}: no such file; make loadtest writes it")
    sys.exit(check(RANGES, json.loads(summary.read_text())))
