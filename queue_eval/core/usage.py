"""What judge calls have used."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    judge_calls: int = 0  # requests that reached the judge and were admitted (not 429, not refused)
    retries_429: int = 0  # answers 429
    input_tokens: int = 0
    output_tokens: int = 0
    unmetered_calls: int = 0  # admitted calls whose answer named no token usage

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            judge_calls=self.judge_calls + other.judge_calls,
            retries_429=self.retries_429 + other.retries_429,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            unmetered_calls=self.unmetered_calls + other.unmetered_calls,
        )

    @property
    def spent(self) -> bool:
        return bool(self.judge_calls or self.retries_429)
