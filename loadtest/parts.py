"""The parts of a measurement that somebody asks for by name: `--only a,b`."""

import argparse
from collections.abc import Callable, Iterable


def some_of(names: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    """For argparse's `type`."""
    known = tuple(names)

    def chosen(text: str) -> tuple[str, ...]:
        asked = tuple(text.split(","))
        if unknown := set(asked) - set(known):
            raise argparse.ArgumentTypeError(f"there is no part {min(unknown)!r}; there are {', '.join(known)}")
        return asked

    return chosen
