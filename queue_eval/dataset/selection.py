"""A chosen part of a case file."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from queue_eval.core.case import Case


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Filter first, then sample, then limit. The same seed chooses the same cases of the same file."""

    limit: int | None = None
    sample: int | None = None
    seed: int = 0
    tags: tuple[str, ...] = ()  # of which a case must have one

    @property
    def described(self) -> str:
        parts = [
            f"filter {' or '.join(self.tags)}" if self.tags else "",
            f"sample {self.sample} seed {self.seed}" if self.sample is not None else "",
            f"limit {self.limit}" if self.limit is not None else "",
        ]
        return ", ".join(part for part in parts if part)

    def of(self, cases: Iterable[Case]) -> Iterator[Case]:
        chosen: Iterator[Case] = (c for c in cases if not self.tags or set(self.tags) & set(c.tags))
        if self.sample is not None:
            chosen = iter(self._sampled(chosen, self.sample))
        for count, case in enumerate(chosen):
            if self.limit is not None and count >= self.limit:
                return
            yield case

    def _sampled(self, cases: Iterator[Case], size: int) -> list[Case]:
        """Reservoir sampling (Vitter's algorithm R): memory grows with the sample, not with the file."""
        chance = random.Random(self.seed)  # noqa: S311 - chooses cases, guards nothing
        kept: list[tuple[int, Case]] = []
        for index, case in enumerate(cases):
            if len(kept) < size:
                kept.append((index, case))
            elif (slot := chance.randrange(index + 1)) < size:
                kept[slot] = (index, case)
        return [case for _, case in sorted(kept, key=lambda pair: pair[0])]
