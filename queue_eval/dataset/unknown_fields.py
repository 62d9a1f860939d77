"""Names of fields that no test case has: as many, and as much of each, as a person reads."""

from collections.abc import Iterable

MOST_KEPT = 1_000  # a hostile file has a new one in each row
MOST_CHARACTERS = 100  # of each
MOST_NAMED = 20


class UnknownFields:
    def __init__(self) -> None:
        self._names: set[str] = set()

    def add(self, names: Iterable[str]) -> None:
        for name in names:
            if len(self._names) < MOST_KEPT:
                self._names.add(shortened(name))

    @property
    def names(self) -> list[str]:
        return sorted(self._names)

    def __str__(self) -> str:
        return listed(self.names)


def listed(names: Iterable[str]) -> str:
    """Return the first of the names in their order, and how many more there are."""
    every = sorted(names)
    more = f" and {len(every) - MOST_NAMED:,} more" if len(every) > MOST_NAMED else ""
    return f"{', '.join(map(shortened, every[:MOST_NAMED]))}{more}"


def shortened(name: str) -> str:
    return name if len(name) <= MOST_CHARACTERS else f"{name[:MOST_CHARACTERS]}…"
