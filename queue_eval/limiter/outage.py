"""While Redis is away: the share of the rate that it has promised this process, for a while; then nothing."""

from queue_eval.core.limits import NO_CHARGE, Charge
from queue_eval.limiter.sync_script import SyncReply

SHARE = 0.9  # of the rate, over all processes
BREAKER_S = 1.0  # until then Redis has seen that this process is silent, and releases its share to no other
GRACE_S = 4.0  # what Redis has promised holds for so long
SAVED_S = 0.25  # of the share may pile up,
SAVED_OF_WINDOW = 0.1  # but no more than the window has to spare
ASKED_AGAIN_S = 0.2  # a call that waits asks more often


class OutageShare:
    """A promise of Redis with an end. What is promised to all together is never more than SHARE.

    Redis gives a process that is silent for almost BREAKER_S its share to use, and releases so much less to the others.
    So it does not matter which of them have lost Redis, in what order, nor how many each of them has counted.
    """

    def __init__(self) -> None:
        self._reply: SyncReply | None = None
        self._begins_at: float | None = None  # None: Redis is there
        self._ends_at = self._promised_until = 0.0
        self._filled_at = 0.0
        self._credit_s = 0.0
        self._paused_until = 0.0
        self._taken = NO_CHARGE

    def redis_replied(self, reply: SyncReply, *, sent_at: float, now: float) -> None:
        self._reply, self._begins_at = reply, None
        self._ends_at = self._promised_until = sent_at + GRACE_S
        self._paused_until = now + reply.paused_s

    def lost(self, now: float, *, may_be_done: bool) -> bool:
        """Redis has refused a step, or broken it off, and may have acted on it until `now`. True when this is news."""
        is_news = self._begins_at is None
        if is_news or may_be_done:
            self._begins_at = self._filled_at = now + BREAKER_S
            self._credit_s = 0.0
        return is_news

    def unanswered(self) -> None:
        """No reply in time is no outage: Redis may act on the step at any moment, and release what it promised."""
        self._ends_at = 0.0

    def pause(self, until: float) -> None:
        self._paused_until = max(self._paused_until, until)

    @property
    def is_away(self) -> bool:
        return self._begins_at is not None

    def held(self, now: float) -> float:
        """The share of the rate that was promised last, while that holds."""
        return self._reply.share if self._reply and now < self._promised_until else 0.0

    def open(self, now: float) -> bool:
        return self._begins_at is not None and self._begins_at <= now < self._ends_at

    def take(self, charge: Charge, now: float) -> bool:
        """Whether a call may go now."""
        if not self.open(now) or now < self._paused_until or self._reply is None or not self._reply.share:
            return False
        amounts = charge.amounts
        takes_s = max((amounts[d] / rate for d, rate in self._reply.alone.items()), default=0.0)
        most_s = min(SAVED_S, SAVED_OF_WINDOW * self._reply.window_s)
        if now - self._filled_at < ASKED_AGAIN_S:
            most_s = max(most_s, takes_s)  # it has waited for this call since
        self._credit_s = min(most_s, self._credit_s + max(0.0, now - self._filled_at))
        self._filled_at = now
        if self._credit_s < takes_s:
            return False
        self._credit_s -= takes_s
        self._taken = charge
        return True

    def returned(self) -> Charge:
        """What to charge to Redis' bucket when it is back: the call that was saved up before, and left just now."""
        taken, self._taken = self._taken, NO_CHARGE
        return taken
