"""The calls of one process at the limiter: from their arrival to their permit."""

import asyncio
from collections.abc import Callable, Iterator

from queue_eval.core.limits import Charge
from queue_eval.limiter.waiter import Granted, Waiter


class Waiters:
    """Calls in the order in which they stand in Redis' queue."""

    def __init__(self) -> None:
        # ticket → a call without a permit, in the order of Redis' queue. Its future is pending, or cancelled in this
        # very
        # turn of the loop.
        self._waiting: dict[str, Waiter] = {}
        # of these: calls that no request has carried to Redis, in the same order
        self._unsent: list[Waiter] = []
        # ticket → what Redis will charge for a call that left its queue without Redis; never also in `_waiting`
        self._abandoned: dict[str, Charge] = {}
        # permits of this process that are not settled; never negative
        self.in_flight = 0
        self._tickets = 0  # given so far: a ticket is used once

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __iter__(self) -> Iterator[Waiter]:
        """In the order of the queue; calls may leave it meanwhile."""
        return iter(list(self._waiting.values()))

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    @property
    def first_sent(self) -> Waiter | None:
        return next((waiter for waiter in self._waiting.values() if waiter.before), None)

    def find(self, ticket: str) -> Waiter | None:
        return self._waiting.get(ticket)

    def add(self, charge: Charge, again: Callable[[], Charge] | None) -> Waiter:
        """Put a call at the end of the queue."""
        self._tickets += 1
        waiter = Waiter(str(self._tickets), charge, asyncio.get_running_loop().create_future(), again)
        self._waiting[waiter.ticket] = waiter
        self._unsent.append(waiter)
        return waiter

    def take_unsent(self) -> list[Waiter]:
        """Return the calls that the next request carries."""
        unsent, self._unsent = self._unsent, []
        return unsent

    def leave(self, waiter: Waiter) -> None:
        """Take a call out of the queue that got no permit from Redis."""
        if not self._waiting.pop(waiter.ticket, None):
            return
        if waiter in self._unsent:
            self._unsent.remove(waiter)
        else:
            self._abandoned[waiter.ticket] = waiter.charge  # as Redis knows it

    def claim_abandoned(self, ticket: str) -> Charge | None:
        """Return what Redis has charged for a call that had left the queue; None where there is no such call."""
        return self._abandoned.pop(ticket, None)

    def grant(self, waiter: Waiter, granted: Granted) -> bool:
        """Give a call its permit. False where it was cancelled in this very turn of the loop."""
        self._waiting.pop(waiter.ticket, None)
        if waiter.granted.done():
            return False
        self.in_flight += 1
        waiter.granted.set_result(granted)
        return True

    def queue_again(self, waiter: Waiter) -> None:
        """Put a call behind the others, at its present price."""
        waiter.charge, waiter.before = waiter.charge_now, None
        self._waiting[waiter.ticket] = self._waiting.pop(waiter.ticket)
        self._unsent.append(waiter)

    def send_all_again(self) -> None:
        """Redis has forgotten the tickets: the next request carries all of them, in order."""
        self._abandoned.clear()
        self._unsent = list(self._waiting.values())
        for waiter in self._unsent:
            waiter.before = None

    def fail(self, error: BaseException) -> None:
        """Raise the error in every call that waits; those that Redis knows are given back when it releases them."""
        for waiter in self:
            self.leave(waiter)
            if not waiter.granted.done():
                waiter.granted.set_exception(error)
