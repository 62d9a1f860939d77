"""From a provider's limit to a bucket that never exceeds it, whatever the provider's way of counting.

A bucket of burst b and rate r, whose releases reach the provider up to J seconds late, puts at most b + r(W+J) requests into
any window W. For a provider that counts in windows that must stay within its limit L; for one that keeps a token
bucket of capacity C itself, r may be the full L/W while b + rJ stays within C.
"""

from dataclasses import dataclass
from typing import Literal

Window = Literal["sliding", "fixed", "bucket"]

RELEASE_JITTER_S = 0.25  # J: event-loop lag and network, generous


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    burst: float
    refill_per_s: float


def bucket_for(limit: float, *, window_s: float, window: Window, burst: float | None = None) -> Bucket:
    """The bucket for `limit` units per `window_s`; `burst` overrides the size chosen here."""
    if window == "bucket":
        rate = limit / window_s
        return Bucket(burst=_within(burst or limit / window_s, limit), refill_per_s=rate)
    size = _within(burst or min(2.0, limit * 0.02), limit)
    spare = limit - size if size < limit else limit
    return Bucket(burst=size, refill_per_s=spare / (window_s + RELEASE_JITTER_S))


def _within(burst: float, limit: float) -> float:
    return max(1.0, min(burst, limit))


def token_bucket_for(limit: float, *, window_s: float, window: Window) -> Bucket:
    """As `bucket_for`, in LLM tokens: a hundredth of the limit may go at once, a larger call leaves debt."""
    return bucket_for(limit, window_s=window_s, window=window, burst=max(1.0, limit / 100))
