"""A fixed slice of a run: the baseline that the queue is measured against, and a way of working without a queue that is
shared.
"""

from dataclasses import dataclass

from queue_eval.core.errors import UsageError
from queue_eval.core.naming import checked_run_id


@dataclass(frozen=True, slots=True)
class Shard:
    index: int  # from 0
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.total:
            raise UsageError(
                f"shard {self.index} of {self.total}: --shard-index goes from 0 to --total-shards less one"
            )

    def holds(self, position: int) -> bool:
        """Of the case at this place of the manifest, from 0: in turns."""
        return position % self.total == self.index

    def queue_of(self, run_id: str) -> str:
        """Return the id under which its cases lie in Redis: no other worker claims them."""
        return checked_run_id(f"{run_id}-{self.index}of{self.total}")
