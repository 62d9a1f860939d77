"""The judge: a model behind an API."""

from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class TokenChoice:
    """One token of an answer, and what might have stood in its place; natural logarithms of probabilities."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    text: str  # a JSON document when a schema was asked for
    input_tokens: int | None
    output_tokens: int | None
    model: str | None = None  # which model has answered, by the server's word
    is_cut: bool = False  # the server ended it at a limit of tokens
    tokens: tuple[TokenChoice, ...] | None = None  # None: the server returns none
    limits: dict[str, float] = field(
        default_factory=dict
    )  # per minute, by dimension, as the answer's headers name them


class Judge(Protocol):
    """One request to the judge model. It never retries."""

    async def ask(self, prompt: str, schema: type[Any] | None) -> Answer:
        """`schema`: the pydantic model that the answer must fit, or None for free text. JudgeError otherwise."""
        ...

    async def close(self) -> None: ...


class WeighingJudge(Judge, Protocol):
    """A judge that may return how probable the tokens of its answer were."""

    @property
    def most_logprobs(self) -> int:
        """Alternatives to a token that it returns at most; 0 when it returns none, as it may turn out."""
        ...

    async def ask_weighed(self, prompt: str, top_logprobs: int) -> Answer:
        """Return free text with its tokens. JudgeError otherwise."""
        ...
