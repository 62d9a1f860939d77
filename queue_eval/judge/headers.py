"""The limits in the headers of a judge's answer: when to come again, and how much is allowed."""

import email.utils
import re
from collections.abc import Mapping
from datetime import datetime

from queue_eval.judge.duration import seconds

# the same facts under several names: OpenAI's and its like, Anthropic's, LiteLLM's of the key
_LIMITS = {
    "requests": (
        "x-ratelimit-limit-requests",
        "anthropic-ratelimit-requests-limit",
        "x-ratelimit-api_key-limit-requests",
        "x-litellm-key-rpm-limit",
    ),
    "tokens": (
        "x-ratelimit-limit-tokens",
        "anthropic-ratelimit-tokens-limit",
        "x-ratelimit-api_key-limit-tokens",
        "x-litellm-key-tpm-limit",
    ),
    "input": ("anthropic-ratelimit-input-tokens-limit",),
    "output": ("anthropic-ratelimit-output-tokens-limit",),
}
_REMAINING_AND_RESET = tuple(
    (f"x-ratelimit-{whose}remaining-{what}", f"x-ratelimit-{whose}reset-{what}")
    for whose in ("", "api_key-")
    for what in ("requests", "tokens")
) + tuple(
    (f"anthropic-ratelimit-{what}-remaining", f"anthropic-ratelimit-{what}-reset")
    for what in ("requests", "tokens", "input-tokens", "output-tokens")
)
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")


def limits_named(headers: Mapping[str, str]) -> dict[str, float]:
    """Limits by dimension, per minute.

    `headers` have lower-case names; -1, 0, less than 1 and rubbish are no limits.
    """
    found: dict[str, float] = {}
    for dimension, names in _LIMITS.items():
        values = [headers.get(name, "").strip() for name in names]
        limits = [float(value) for value in values if _NUMBER.fullmatch(value) and float(value) >= 1]
        if limits:
            found[dimension] = min(limits)  # a gateway passes its provider's on beside its own
    return found


def retry_after_s(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return in how many seconds a refused call may come again.

    By Retry-After in all its spellings, else by the latest reset of a limit that is used up.

    Seconds, `retry-after-ms`, an HTTP date, an ISO-8601 moment, `6m0s`, `1m30.5s`. None when absent or senseless.
    LiteLLM hands its provider's headers on under names of its own, which count where it names none itself.

    """
    for whose in ("", "llm_provider-"):
        milliseconds = headers.get(f"{whose}retry-after-ms", "").strip()
        if _NUMBER.fullmatch(milliseconds):
            return float(milliseconds) / 1000
        if (asked := _seconds(headers.get(f"{whose}retry-after", ""), now)) is not None:
            return asked
    resets = [
        wait_s
        for whose in ("", "llm_provider-")
        for remaining, reset in _REMAINING_AND_RESET
        if headers.get(whose + remaining, "").strip() == "0"
        and (wait_s := _seconds(headers.get(whose + reset, ""), now)) is not None
    ]
    return max(resets, default=None)


def _seconds(value: str, now: float) -> float | None:
    value = value.strip()
    if (asked_s := seconds(value)) is not None:
        return asked_s
    for parsed in (email.utils.parsedate_to_datetime, datetime.fromisoformat):
        try:
            return max(0.0, parsed(value).timestamp() - now)
        except (ValueError, TypeError, OverflowError):
            continue
    return None
