"""How Redis answers one process: how long to wait for an answer, and whether Redis sees the process often enough."""

LEAST_TIMEOUT_S = 0.25
MOST_TIMEOUT_S = 4.0
SILENT_LOOKS = 4  # the tickets of a silent process are not worth a permit
SHARE_WITHIN_S = 0.3  # a Redis that takes longer to answer would see too late that the process is gone
SHARE_GAP_S = 0.6  # between steps: a process that is held up for longer would be taken for gone again and again


class RoundTrips:
    def __init__(self) -> None:
        self.timeout_s = LEAST_TIMEOUT_S
        self.tries = 0  # of the step under way
        self._first_sent_at = 0.0  # of the step under way
        self._sent_at: float | None = None
        self._took_s = 0.0  # the longest of late
        self._gap_s = 0.0  # between two steps, the longest of late

    def sent(self, now: float) -> None:
        if self._sent_at is not None:
            self._gap_s = max(now - self._sent_at, 0.97 * self._gap_s)
        if not self.tries:
            self._first_sent_at = now
        self._sent_at = now
        self.tries += 1

    def answered(self, now: float) -> None:
        """A Redis that is far away or busy answers within a few times what it took."""
        self._took_s = max(now - (self._sent_at or 0.0), 0.9 * self._took_s)
        self.timeout_s = min(max(LEAST_TIMEOUT_S, 3 * self._took_s), MOST_TIMEOUT_S)
        self.tries = 0

    def wait_longer(self) -> None:
        self.timeout_s = min(2 * self.timeout_s, MOST_TIMEOUT_S)

    def unanswered_s(self, now: float) -> float:
        """Since the step under way was sent first."""
        return now - self._first_sent_at

    def silent_s(self, look_s: float) -> float:
        """Without a step for so long, a process that looks every `look_s` while calls wait is gone."""
        return SILENT_LOOKS * max(look_s, self._took_s)

    @property
    def may_share(self) -> bool:
        """Whether Redis sees in time that the process is gone, and does not take it for gone when it is not."""
        return self._took_s < SHARE_WITHIN_S and self._gap_s < SHARE_GAP_S
