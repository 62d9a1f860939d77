"""Why a judge call failed."""

from enum import Flag, auto

from queue_eval.core.attempt import ErrorClass


class Trait(Flag):
    """What is known of a failed call, beside its class."""

    NONE = 0
    RATE_LIMITED = auto()  # the judge has too many calls: all processes pause
    PROXYS_OWN = auto()  # a proxy before the judge answered by itself; while others are served, that is a rate limit
    QUOTA = auto()  # the judge's quota is used up; while others are served, that is a rate limit
    TIMEOUT = auto()  # a gateway has given the judge up, which may have too many calls
    REJECTED = auto()  # the request was read, and no model has seen it
    INVALID_ANSWER = auto()  # it gave no usable text
    UNEXPLAINED = auto()  # nothing in it shows whether it is about one case or all
    CHANGED_REQUEST = auto()  # the next request leaves out what this one was rejected for, so it is no attempt


class JudgeError(Exception):
    """A failed judge call, classed. `admitted`: the request reached the judge and counts as a call."""

    def __init__(
        self,
        message: str,
        kind: ErrorClass,
        *,
        admitted: bool = False,
        traits: Trait = Trait.NONE,
        retry_after_s: float | None = None,
        limits: dict[str, float] | None = None,
        quoted: str = "",
    ) -> None:
        """`limits`: per minute, by dimension, as the answer's headers name them.

        `quoted`: the judge's words in the message.
        """
        super().__init__(message)
        self.kind = kind
        self.admitted = admitted
        self.traits = traits
        self.retry_after_s = retry_after_s
        self.limits = limits or {}
        self.quoted = quoted

    @property
    def public(self) -> str:
        """The message without the judge's words, which may be those of a prompt.

        For logs, and for what a run is held for.
        """
        return str(self).replace(self.quoted, "…") if self.quoted else str(self)

    @property
    def rate_limited(self) -> bool:
        return Trait.RATE_LIMITED in self.traits

    @property
    def is_proxys_own(self) -> bool:
        return Trait.PROXYS_OWN in self.traits

    @property
    def is_quota(self) -> bool:
        return Trait.QUOTA in self.traits

    @property
    def is_timeout(self) -> bool:
        return Trait.TIMEOUT in self.traits

    @property
    def is_rejected(self) -> bool:
        return Trait.REJECTED in self.traits

    @property
    def is_invalid_answer(self) -> bool:
        return Trait.INVALID_ANSWER in self.traits

    @property
    def is_unexplained(self) -> bool:
        return Trait.UNEXPLAINED in self.traits

    @property
    def has_changed_request(self) -> bool:
        return Trait.CHANGED_REQUEST in self.traits
