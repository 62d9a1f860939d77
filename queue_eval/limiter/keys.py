"""Names of the limiter's keys in Redis; docs/reference/keys.md explains them."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LimiterKeys:
    """Of one provider, account and model, all in one hash slot.

    The name is hashed: it holds what users call their accounts.
    """

    name: str

    @property
    def _base(self) -> str:
        return f"qe:limit:{{{hashlib.sha256(self.name.encode()).hexdigest()[:16]}}}"

    @property
    def state(self) -> str:
        return self._base

    @property
    def processes(self) -> str:
        return f"{self._base}:processes"

    @property
    def shares(self) -> str:
        """Hash: process → when it was last seen, and the share of the rate that it may use without Redis."""
        return f"{self._base}:shares"

    @property
    def in_flight(self) -> str:
        """Hash: process → calls that it has in flight, or was released."""
        return f"{self._base}:in-flight"

    @property
    def lanes(self) -> str:
        return f"{self._base}:lanes"

    @property
    def timeline(self) -> str:
        return f"{self._base}:timeline"

    def lane(self, run_id: str) -> str:
        return f"{self._base}:lane:{run_id}"

    def fifo(self, run_id: str) -> str:
        return f"{self._base}:fifo:{run_id}"

    def grants(self, process: str) -> str:
        return f"{self._base}:grants:{process}"

    @property
    def of_sync(self) -> list[str]:
        prefixes = [self.lane(""), self.fifo(""), self.grants("")]
        return [self.state, self.processes, self.lanes, self.timeline, *prefixes, self.shares, self.in_flight]
