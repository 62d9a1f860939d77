"""Whether the judge serves, as the calls of one process have seen it."""

from queue_eval.ports.clock import Now

SERVES_NOBODY_S = 5.0  # without an answer to any call
SERVES_WITHIN_S = 60.0  # a judge that has answered since then is up


class JudgeHealth:
    def __init__(self, now: Now) -> None:
        self._now = now
        self.failures_in_a_row = 0  # of calls that may succeed later
        self._failing_since: float | None = None
        self._rate_limited_since: float | None = None  # nothing but rate limits since then
        self._served_at = float("-inf")

    def served(self) -> None:
        """The judge has answered, whatever the answer is worth."""
        self.failures_in_a_row, self._failing_since = 0, None
        self._rate_limited_since, self._served_at = None, self._now()

    def failed(self) -> None:
        self.failures_in_a_row += 1
        if self._failing_since is None:
            self._failing_since = self._now()

    def rate_limited(self) -> None:
        if self._rate_limited_since is None:
            self._rate_limited_since = self._now()

    @property
    def rate_limited_for_s(self) -> float:
        return 0.0 if self._rate_limited_since is None else self._now() - self._rate_limited_since

    @property
    def serves(self) -> bool:
        return self._now() - self._served_at < SERVES_WITHIN_S

    def serves_nobody(self, failures: int) -> bool:
        """Return whether no call has had an answer for a while, after `failures` in a row at least."""
        for_long = self._failing_since is not None and self._now() - self._failing_since >= SERVES_NOBODY_S
        return for_long and self.failures_in_a_row >= failures
