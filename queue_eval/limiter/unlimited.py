"""A judge that stands for itself alone: every call goes at once. A 429 still pauses this process."""

from collections.abc import Callable

from queue_eval.core.limits import Charge, pause_s
from queue_eval.ports.clock import Now, Sleep
from queue_eval.ports.limiter import Permit

DEFAULT_PAUSE_S = 1.0


class Unlimited:
    def __init__(self, *, now: Now, sleep: Sleep) -> None:
        self._now = now
        self._sleep = sleep
        self._paused_until = 0.0

    async def acquire(self, charge: Charge, again: Callable[[], Charge] | None = None) -> Permit:
        asked_at = self._now()
        while (left := self._paused_until - self._now()) > 0:
            await self._sleep(left)
        return Permit(charge=charge, waited_s=self._now() - asked_at)

    @property
    def output_tokens(self) -> float | None:
        return None

    def answers_take(self, output_tokens: float) -> None:
        """Nothing is charged."""

    def settle(self, permit: Permit, used: Charge, *, answered: bool = False) -> None:
        """Nothing is charged."""

    def timed_out(self, permit: Permit) -> None:
        """Nothing is in flight for others."""

    def rate_limited(self, permit: Permit, retry_after_s: float | None) -> None:
        self._paused_until = max(self._paused_until, self._now() + (pause_s(retry_after_s) or DEFAULT_PAUSE_S))

    def observed(self, per_minute: dict[str, float]) -> None:
        """Nothing is limited."""

    async def close(self) -> None:
        """Nothing is held."""
