"""The limiter of judge calls."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from queue_eval.core.limits import Charge


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """The limiter's grant for one judge call."""

    charge: Charge  # taken at release; settled later with the actual use
    waited_s: float
    granted_at: float = 0.0  # by the process' clock
    generation: str = ""  # of the limiter's state; a permit of another one settles nothing
    serial: int = 0  # counts releases: shows which of them were before a cut


class Limiter(Protocol):
    """One queue for all processes that share a judge account and model."""

    async def acquire(self, charge: Charge, again: Callable[[], Charge] | None = None) -> Permit:
        """Wait in the queue with the estimated `charge`.

        `again`: the estimate by now. A call that has become dearer while it waited is not let go at the old price.
        """
        ...

    @property
    def output_tokens(self) -> float | None:
        """What an answer takes in the mean, as a process has last reported it; None: no process has."""
        ...

    def answers_take(self, output_tokens: float) -> None:
        """Share the mean length of an answer with the other processes, which may have seen none yet."""
        ...

    def settle(self, permit: Permit, used: Charge, *, answered: bool = False) -> None:
        """What the call really took; core.limits.NO_CHARGE when the request never left. Once per permit.

        `answered`: the judge has served it, in the time since the permit.
        """
        ...

    def timed_out(self, permit: Permit) -> None:
        """The judge gave no answer in time: it has too many calls. Settles the permit too."""
        ...

    def rate_limited(self, permit: Permit, retry_after_s: float | None) -> None:
        """The judge answered 429: all processes pause. Settles the permit too."""
        ...

    def observed(self, per_minute: dict[str, float]) -> None:
        """Limits that the judge's answer named, by dimension."""
        ...

    async def close(self) -> None: ...
