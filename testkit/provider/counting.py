"""How providers count. Each class admits or refuses an amount at a moment, and never looks at who asks."""

from collections import deque
from typing import Protocol


class Counter(Protocol):
    def wait_s(self, now: float, amount: float) -> float:
        """0 when the amount would be admitted now, else seconds until it might be."""
        ...

    def take(self, now: float, amount: float) -> None: ...

    def left(self, now: float) -> float:
        """What would be admitted now."""
        ...


class SlidingWindow:
    """At most `limit` in any `window_s` seconds."""

    def __init__(self, limit: float, window_s: float) -> None:
        self.limit = limit
        self.window_s = window_s
        self._taken: deque[tuple[float, float]] = deque()
        self._sum = 0.0

    def _expire(self, now: float) -> None:
        while self._taken and self._taken[0][0] <= now - self.window_s:
            self._sum -= self._taken.popleft()[1]

    def wait_s(self, now: float, amount: float) -> float:
        self._expire(now)
        over = self._sum + amount - self.limit
        for at, taken in self._taken:
            if over <= 0:
                return 0.0
            over -= taken
            if over <= 0:
                return max(1e-3, at + self.window_s - now)
        return 0.0 if over <= 0 else self.window_s

    def take(self, now: float, amount: float) -> None:
        self._taken.append((now, amount))
        self._sum += amount

    def left(self, now: float) -> float:
        self._expire(now)
        return max(0.0, self.limit - self._sum)


class FixedWindow:
    """At most `limit` in each stretch of `window_s` seconds of the clock."""

    def __init__(self, limit: float, window_s: float) -> None:
        self.limit = limit
        self.window_s = window_s
        self._index = -1
        self._sum = 0.0

    def _turn(self, now: float) -> None:
        if (index := int(now // self.window_s)) != self._index:
            self._index, self._sum = index, 0.0

    def wait_s(self, now: float, amount: float) -> float:
        self._turn(now)
        return 0.0 if self._sum + amount <= self.limit else (self._index + 1) * self.window_s - now

    def take(self, now: float, amount: float) -> None:
        self._turn(now)
        self._sum += amount

    def left(self, now: float) -> float:
        self._turn(now)
        return max(0.0, self.limit - self._sum)


class TokenBucket:
    """Refills at limit/window_s; holds `capacity`."""

    def __init__(self, limit: float, window_s: float, capacity: float | None = None) -> None:
        self.limit = limit
        self.window_s = window_s
        self.capacity = limit if capacity is None else capacity
        self._level = self.capacity
        self._at: float | None = None

    def _refill(self, now: float) -> None:
        if self._at is not None:
            self._level = min(self.capacity, self._level + max(0.0, now - self._at) * self.limit / self.window_s)
        self._at = now

    def wait_s(self, now: float, amount: float) -> float:
        self._refill(now)
        lack = min(amount, self.capacity) - self._level
        return 0.0 if lack <= 1e-9 else lack * self.window_s / self.limit

    def take(self, now: float, amount: float) -> None:
        self._refill(now)
        self._level -= amount

    def left(self, now: float) -> float:
        self._refill(now)
        return max(0.0, self._level)


def counter(kind: str, limit: float, window_s: float) -> Counter:
    """`sliding`, `fixed`, `bucket` (a second's worth may come at once) or `second` (a sliding window of one second)."""
    match kind:
        case "sliding":
            return SlidingWindow(limit, window_s)
        case "fixed":
            return FixedWindow(limit, window_s)
        case "bucket":
            return TokenBucket(limit, window_s, limit / window_s)
        case "second":
            return SlidingWindow(limit / window_s, 1.0)
    raise ValueError(f"{kind} is no way of counting: sliding, fixed, bucket, second")


def refused(arrivals: list[float], kind: str, limit: float, window_s: float) -> int:
    """How many of these arrivals a provider that counts in this way would have refused."""
    judge, count = counter(kind, limit, window_s), 0
    for at in arrivals:
        if judge.wait_s(at, 1):
            count += 1
        else:
            judge.take(at, 1)
    return count
