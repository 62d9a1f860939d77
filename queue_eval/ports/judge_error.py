"""Why a judge call failed."""

from queue_eval.core.attempt import ErrorClass


class JudgeError(Exception):
    """A failed judge call, classed. `admitted`: the request reached the judge and counts as a call."""

    def __init__(
        self,
        message: str,
        kind: ErrorClass,
        *,
        admitted: bool = False,
        rate_limited: bool = False,
        retry_after_s: float | None = None,
        limits: dict[str, float] | None = None,
        is_invalid_answer: bool = False,
        is_unexplained: bool = False,
        has_changed_request: bool = False,
        is_rejected: bool = False,
        is_proxys_own: bool = False,
        is_timeout: bool = False,
    ) -> None:
        """`is_invalid_answer`: it gave no usable text. `is_unexplained`: nothing says whether it means one case or all.
        `has_changed_request`: the next request leaves out what this one was rejected for, so it is no attempt.
        `is_rejected`: the request was read, and no model has seen it.
        `is_proxys_own`: a proxy before the judge turned it away by itself; while others are served, that is a limit.
        `is_timeout`: a gateway has given the judge up, which may have too many calls.
        """
        super().__init__(message)
        self.kind = kind
        self.is_invalid_answer = is_invalid_answer
        self.is_unexplained = is_unexplained
        self.has_changed_request = has_changed_request
        self.is_rejected = is_rejected
        self.is_proxys_own = is_proxys_own
        self.is_timeout = is_timeout
        self.admitted = admitted
        self.rate_limited = rate_limited
        self.retry_after_s = retry_after_s
        self.limits = limits or {}
