"""Time and chance."""

from collections.abc import Awaitable, Callable

Now = Callable[[], float]  # Unix seconds
Sleep = Callable[[float], Awaitable[None]]
Chance = Callable[[], float]  # uniform in [0, 1)
