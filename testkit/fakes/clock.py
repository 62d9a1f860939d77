"""Time that stands still until a sleep."""


class FakeClock:
    """`now` and `sleep` for constructors. Sleeping advances the time, whatever other tasks sleep."""

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
