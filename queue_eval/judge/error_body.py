"""The machine-readable part of an error's body: codes, the parameter that is meant, when to come again."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from queue_eval.judge.duration import asked_in_words, seconds

MOST_CHARACTERS = 65_536  # of a body that is read as JSON
RATE_CODES = frozenset(
    (
        "429",
        "rate_limit_exceeded",
        "rate_limit_error",
        "rate_limited",
        "ratelimitexceeded",
        "too_many_requests",
        "resource_exhausted",
        "throttlingexception",
        "throttling_error",
    )
)
_CODES = ("code", "type", "status", "__type", "reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBody:
    """Of OpenAI and its like, Azure, Anthropic, Google, LiteLLM, OpenRouter, vLLM, Ollama, Bedrock, FastAPI."""

    codes: frozenset[str] = frozenset()  # in lower case, whatever the field is called
    status: int | None = None  # an HTTP status that stands in the body
    param: str | None = None  # of the request
    message: str = ""
    retry_after_s: float | None = None

    @property
    def is_rate_limit(self) -> bool:
        return bool(self.codes & RATE_CODES)

    @classmethod
    def of(cls, text: str) -> "ErrorBody":
        """Empty but for the message, where the text is no JSON. A long one counts as prose."""
        try:
            body = json.loads(text) if len(text) <= MOST_CHARACTERS else None
        except (ValueError, RecursionError):
            body = None
        return cls.read(body, text)

    @classmethod
    def read(cls, body: Any, text: str = "") -> "ErrorBody":
        """Read parsed JSON. `text`: what stands for its message where it has none."""
        parts = list(_parts(body))
        if not parts:
            return cls(message=text, retry_after_s=asked_in_words(text))
        codes = {str(part[name]).lower() for part in parts for name in _CODES if isinstance(part.get(name), str | int)}
        messages = [
            part[name] for part in parts for name in ("message", "detail", "error") if isinstance(part.get(name), str)
        ]
        delays = [part["retryDelay"] for part in parts if isinstance(part.get("retryDelay"), str)]
        asked = [asked_s for delay in delays if (asked_s := seconds(delay)) is not None]
        return cls(
            codes=frozenset(codes),
            status=next((int(code) for code in codes if re.fullmatch(r"[1-5]\d\d", code)), None),
            param=next(filter(None, map(_param, parts)), None),
            message=" ".join(messages) or text,
            retry_after_s=max(asked, default=None) or asked_in_words(" ".join(messages)),
        )


def error_in(body: Any) -> ErrorBody | None:
    """The error that a body of status 200 has in place of an answer: under `error`, as OpenRouter's, or all of it."""
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    if error := body.get("error") or choice.get("error"):
        return ErrorBody.read({"error": error})
    if not choices and ((alone := ErrorBody.read(body)).codes or alone.message):
        return alone
    return None


def _parts(body: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects that describe an error, from the outside in."""
    if isinstance(body, list):  # Google wraps an error in a list
        body = body[0] if body else None
    for _ in range(4):
        if not isinstance(body, dict):
            return
        yield body
        for name in ("details", "detail"):
            for detail in body[name][:8] if isinstance(body.get(name), list) else ():
                if isinstance(detail, dict):
                    yield detail
        body = next(
            (body[name] for name in ("error", "innererror", "inner_error") if isinstance(body.get(name), dict)), None
        )


def _param(part: dict[str, Any]) -> str | None:
    """OpenAI names it; FastAPI gives the way to it."""
    place = part.get("loc")
    param = place[-1] if isinstance(place, list) and place else part.get("param")
    return param if isinstance(param, str) else None
