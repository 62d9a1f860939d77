"""No limit is configured: every call goes at once. A 429 still pauses this process."""

from queue_eval.ports import LimiterStats, Now, Permit, Sleep

DEFAULT_PAUSE_S = 1.0
MAX_PAUSE_S = 60.0


class Unlimited:
    def __init__(self, *, now: Now, sleep: Sleep) -> None:
        self._now = now
        self._sleep = sleep
        self._paused_until = 0.0
        self._released = 0
        self._count_429 = 0
        self._waiting = 0

    async def acquire(self, tokens: int) -> Permit:
        asked_at = self._now()
        self._waiting += 1
        try:
            while (left := self._paused_until - self._now()) > 0:
                await self._sleep(left)
        finally:
            self._waiting -= 1
        self._released += 1
        return Permit(ticket="", tokens=tokens, waited_s=self._now() - asked_at)

    def settle(self, permit: Permit, tokens: int | None) -> None:
        """Nothing is charged."""

    def rate_limited(self, permit: Permit, retry_after_s: float | None) -> None:
        self._count_429 += 1
        pause_s = DEFAULT_PAUSE_S if retry_after_s is None or retry_after_s <= 0 else min(retry_after_s, MAX_PAUSE_S)
        self._paused_until = max(self._paused_until, self._now() + pause_s)

    async def stats(self) -> LimiterStats:
        paused_s = max(0.0, self._paused_until - self._now())
        return LimiterStats(
            waiting=self._waiting, released=self._released, paused_s=paused_s, count_429=self._count_429
        )

    async def close(self) -> None:
        """Nothing is held."""
