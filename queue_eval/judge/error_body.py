"""The machine-readable part of an error's body: codes, the parameter that is meant, when to come again."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MOST_CHARACTERS = 65_536  # of a body that is read as JSON
RATE_CODES = frozenset((
    "429", "rate_limit_exceeded", "rate_limit_error", "rate_limited", "ratelimitexceeded", "too_many_requests", "resource_exhausted",
    "throttlingexception", "throttling_error",
))  # fmt: skip
_CODES = ("code", "type", "status", "__type", "reason")
_RETRY_IN = re.compile(
    r"(?:retry|try again)\s+(?:in|after)\s+(\d{1,9}(?:\.\d{1,9})?)\s*(ms|milliseconds|minutes?|m\b|s)?", re.IGNORECASE
)
_SECONDS = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")


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
            return cls(message=text, retry_after_s=_asked_in_words(text))
        codes = {str(part[name]).lower() for part in parts for name in _CODES if isinstance(part.get(name), str | int)}
        messages = [
            part[name] for part in parts for name in ("message", "detail", "error") if isinstance(part.get(name), str)
        ]
        delays = [part["retryDelay"] for part in parts if isinstance(part.get("retryDelay"), str)]
        asked = [float(found[1]) for delay in delays if (found := _SECONDS.fullmatch(delay))]
        return cls(
            codes=frozenset(codes),
            status=next((int(code) for code in codes if re.fullmatch(r"[1-5]\d\d", code)), None),
            param=next(filter(None, map(_param, parts)), None),
            message=" ".join(messages) or text,
            retry_after_s=max(asked, default=None) or _asked_in_words(" ".join(messages)),
        )


def error_in(body: Any) -> ErrorBody | None:
    """The error that a body of status 200 brings in place of an answer, as OpenRouter's does."""
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    error = body.get("error") or choice.get("error")
    return ErrorBody.read({"error": error}) if error else None


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


def _asked_in_words(text: str) -> float | None:
    found = _RETRY_IN.search(text)
    if not found:
        return None
    unit = (found[2] or "s").lower()
    return float(found[1]) * (0.001 if unit.startswith(("ms", "milli")) else 60 if unit.startswith("m") else 1)
