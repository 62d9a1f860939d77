"""A call that waits in the limiter's queue, and what it is given."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass

from queue_eval.core.limits import Charge

TOKENS = {"input", "output", "tokens"}
TOO_CHEAP = 1.25  # times what a call was charged for, its estimate has become while it waited


@dataclass(frozen=True, slots=True)
class Granted:
    generation: str  # "" for a permit by the share of an outage, which the script does not know
    serial: int
    late_since: float  # this process' clock, as if the release had been then


@dataclass(slots=True, eq=False)
class Waiter:
    ticket: str
    charge: Charge
    granted: "asyncio.Future[Granted]"
    again: Callable[[], Charge] | None = None  # what it is estimated to take by now
    before: tuple[float, float, float] | None = None  # what stands before it in the lane's queue; None: not sent

    @property
    def charge_now(self) -> Charge:
        return self.again() if self.again else self.charge

    def is_too_cheap(self, limited: Collection[str]) -> bool:
        """Whether answers have shown since that the call takes far more than it was charged for."""
        if not TOKENS.intersection(limited):
            return False
        taken, by_now = self.charge.amounts, self.charge_now.amounts
        return any(by_now[d] > TOO_CHEAP * taken[d] for d in limited)
