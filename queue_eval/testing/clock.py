"""Time that stands still until somebody sleeps."""


class FakeClock:
    """`now` and `sleep` for constructors. Sleeping advances the time and yields to nobody else's wake-up order."""

    def __init__(self, start_s: float = 1_800_000_000.0) -> None:
        self._now_s = start_s
        self.slept_s: list[float] = []

    def now(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        self._now_s += seconds

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self._now_s += seconds
