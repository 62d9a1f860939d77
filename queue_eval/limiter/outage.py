"""While Redis is away: a share of the last known rate that all processes together cannot exceed, for a while; then nothing."""

from queue_eval.core.limits import Charge
from queue_eval.limiter.pump import Reply

SHARE = 0.9  # of the rate, over all processes: what was released just before counts too
BREAKER_S = 1.0  # away for so long before anybody goes on alone
FRESH_S = 1.0
GRACE_S = 60.0
SAVED_S = 0.25  # of the share may pile up


class OutageShare:
    """Never more than SHARE/N of the rate, N being the processes that the last reply counted.

    A process takes part only when its last word from Redis was fresh at the outage's beginning and it had been known for FRESH_S by
    then. So any two that take part have counted each other, and the shares cannot add up to more than SHARE.
    """

    def __init__(self) -> None:
        self._reply: Reply | None = None
        self._joined_at = 0.0
        self._heard_at = 0.0
        self._away_since: float | None = None
        self._filled_at = 0.0
        self._credit_s = 0.0
        self._paused_until = 0.0

    def joined(self, now: float) -> None:
        self._joined_at = now

    def heard(self, reply: Reply, now: float) -> None:
        self._reply, self._heard_at, self._away_since = reply, now, None
        self._paused_until = now + reply.paused_s

    def away(self, now: float) -> bool:
        """True when this is news."""
        news = self._away_since is None
        if news:
            self._away_since, self._credit_s, self._filled_at = now, 0.0, now + BREAKER_S
        return news

    def pause(self, until: float) -> None:
        self._paused_until = max(self._paused_until, until)

    @property
    def is_away(self) -> bool:
        return self._away_since is not None

    def open(self, now: float) -> bool:
        if self._reply is None or self._away_since is None:
            return False
        fresh = self._away_since - self._heard_at <= FRESH_S and self._heard_at - self._joined_at >= FRESH_S
        return fresh and self._away_since + BREAKER_S <= now <= self._away_since + GRACE_S

    def take(self, charge: Charge, now: float) -> bool:
        """Whether a call may go now."""
        if not self.open(now) or now < self._paused_until or self._reply is None:
            return False
        self._credit_s = min(SAVED_S, self._credit_s + max(0.0, now - self._filled_at))
        self._filled_at = now
        amounts, processes = charge.amounts, max(1, self._reply.processes)
        takes_s = max((amounts[d] * processes / (SHARE * rate) for d, rate in self._reply.rate.items()), default=0.0)
        if self._credit_s < min(takes_s, SAVED_S):
            return False
        self._credit_s -= takes_s  # a large call leaves debt
        return True
