"""What to do after an error: decided here, performed by the flow."""

from dataclasses import dataclass
from enum import StrEnum

from queue_eval.core.limits import pause_s

MAX_CRASHES = 3  # workers that a case may take with it before it is dead
QUARANTINE_AFTER = 2  # crashes; from then on a worker carries one such case at a time, so that it takes no others along


class ErrorClass(StrEnum):
    """An error is classed by what the run should do."""

    RETRY = "retry"  # 429, 5xx, timeout, reset: the same call may succeed later
    CASE_FATAL = "case-fatal"  # too long, filtered, never a valid answer: this case cannot be scored
    RUN_FATAL = "run-fatal"  # bad key, no quota, unknown model: no call can succeed


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential with full jitter; a Retry-After is a lower bound, itself bounded."""

    base_s: float
    max_s: float

    def delay_s(self, attempt: int, *, jitter: float, retry_after_s: float | None = None) -> float:
        """Seconds before attempt+1; `attempt` counts from 1, `jitter` is uniform in [0, 1)."""
        ceiling = min(self.max_s, self.base_s * 2.0 ** min(attempt - 1, 30))
        delay = ceiling * (0.5 + 0.5 * jitter)
        if retry_after_s is None:
            return delay
        # spread the crowd that was given the same Retry-After
        return max(delay, pause_s(retry_after_s) * (1 + 0.1 * jitter))


@dataclass(frozen=True, slots=True)
class Retry:
    delay_s: float


@dataclass(frozen=True, slots=True)
class DeadLetter:
    reason: str


@dataclass(frozen=True, slots=True)
class Accept:
    pass


def after_attempt(
    errors: list[tuple[str, str, bool]],
    *,
    metrics: int,
    attempt: int,
    max_attempts: int,
    backoff: Backoff,
    jitter: float,
) -> Accept | Retry | DeadLetter:
    """How a case goes on after an attempt.

    `errors`: (metric, message, retriable) of the metrics that gave no score. A case with any retriable error is tried
    again while attempts remain. Afterwards it is accepted with the scores it has, its failed metrics counted as
    errors; without any score it is dead.
    """
    if not errors:
        return Accept()
    if attempt < max_attempts and any(retriable for _, _, retriable in errors):
        return Retry(backoff.delay_s(attempt, jitter=jitter))
    if len(errors) < metrics:
        return Accept()
    metric, message, _ = errors[0]
    return DeadLetter(f"no metric could be scored after {attempt} of {max_attempts} attempts; {metric}: {message}")
