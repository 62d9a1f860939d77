"""The burst rule: from a provider's limit to a bucket that never exceeds it, whatever the provider's way of counting.

A bucket of burst b and rate r whose releases reach the provider up to J seconds late puts at most b + r(W+J) units into
any window of W seconds. A provider that counts in windows of limit L admits that while b + r(W+J) ≤ L; requests are
whole, so for them less than L + 1 will do. A provider that keeps a token bucket of capacity C itself admits the full r
= L/W while b + rJ ≤ C. The limiter's Lua has the same formula; a property test holds the two together.
"""

import math
from dataclasses import dataclass

from queue_eval.core.limits import Counting

TICK_S = 0.02  # an event loop is no more punctual than that: a smaller burst would lose rate
LEAST_JITTER_S = 0.05  # the network between us and the provider, which cannot be measured here
MOST_JITTER_S = 2.0
BELOW_ONE = 0.99

CUT = 0.9
LEAST_FACTOR = 0.02
RETURN_S = 8.0  # from a cut back to the rate that was refused
CLIMB_S = 14.0  # from there over the whole configured rate
PAUSE_COUNTED_S = 2.0  # of the pause that comes with a cut: no call is served in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    burst: float
    refill_per_s: float


def bucket_for(
    dimension: str, limit_per_minute: float, counting: Counting, *, jitter_s: float, largest: float = 0.0
) -> Bucket:
    """`jitter_s`: how late releases were seen to leave. `largest`: the most tokens that one call takes."""
    limit = limit_per_minute * counting.window_s / 60
    jitter_s = min(max(jitter_s, LEAST_JITTER_S), MOST_JITTER_S)
    requests = dimension == "requests"
    if counting.window == "bucket":
        rate = limit / counting.window_s
        capacity = counting.burst if requests and counting.burst else rate  # a second's worth
        return Bucket(burst=max(1.0, capacity - rate * jitter_s), refill_per_s=rate)
    if requests:
        wanted = counting.burst or min(max(2.0, TICK_S * limit / counting.window_s), limit / 50)
        burst = max(1.0, min(wanted, limit / 2))
        spare = math.floor(limit + 1e-6) + BELOW_ONE - burst if limit >= 1 else limit
    else:
        burst = max(1.0, limit / 100, min(largest + TICK_S * limit / counting.window_s, limit / 2))
        spare = limit - burst if limit > 2 else limit / 2
    return Bucket(burst=burst, refill_per_s=spare / (counting.window_s + jitter_s))


def recovered(cut_from: float, cut_to: float, since_s: float) -> float:
    """Return the share of the configured rate, `since_s` after a cut, of whose pause PAUSE_COUNTED_S count at most.

    It comes back to the refused rate within RETURN_S, fast at first and then slowly, and leaves it slowly at first and
    then faster: most of the time is spent just below a limit that the provider has lowered. How it leaves does not
    depend on how far it was cut: half the rate is back within 21 s, all of it within 22 s. The idea is CUBIC's (RFC
    9438).
    """
    left = max(0.0, 1 - max(0.0, since_s) / RETURN_S)
    climbed = max(0.0, since_s - RETURN_S) / CLIMB_S
    return min(1.0, cut_from - (cut_from - cut_to) * left**5 + climbed**5)


def cut(factor: float) -> float:
    return max(LEAST_FACTOR, factor * CUT)
