"""Time and chance."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

Now = Callable[[], float]  # Unix seconds
Sleep = Callable[[float], Awaitable[None]]
Chance = Callable[[], float]  # uniform in [0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    now: Now
    sleep: Sleep
    chance: Chance
