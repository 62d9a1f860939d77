"""The parts of a measurement that are asked for by name: `--only a,b`."""

import argparse
from collections.abc import Iterable


def add_only(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    """`args.only`: the chosen names as they were written, all of them by default."""
    known = tuple(names)

    def chosen(text: str) -> tuple[str, ...]:
        asked = tuple(text.split(","))
        if unknown := set(asked) - set(known):
            raise argparse.ArgumentTypeError(f"there is no part {min(unknown)!r}; there are {', '.join(known)}")
        return asked

    parser.add_argument("--only", type=chosen, default=known, metavar="PARTS", help=f"some of {', '.join(known)}")
