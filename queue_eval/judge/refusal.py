"""What an HTTP answer of a judge means for the run."""

from collections.abc import Mapping

from queue_eval.core.attempt import ErrorClass
from queue_eval.judge.headers import limits_named, retry_after_s
from queue_eval.judge.secrets import Secrets
from queue_eval.ports import JudgeError

_EXHAUSTED = ("insufficient_quota", "billing_hard_limit", "quota_exceeded", "exceeded your current quota")
_UNKNOWN_MODEL = ("model_not_found", "does not exist", "unknown model", "model not found")
_TOO_LONG = (
    "context_length_exceeded",
    "maximum context length",
    "too many tokens",
    "string too long",
    "request too large",
)
_FILTERED = ("content_filter", "content_policy", "responsibleai")


def refusal(  # noqa: PLR0911 - a table of answers, read from top to bottom
    status: int, body: str, headers: Mapping[str, str], secrets: Secrets, *, now: float
) -> JudgeError:
    """Classes an answer that is not 200. 429 and authentication were not admitted; the rest may have cost something."""
    said = f"HTTP {status}: {_message(secrets.blanked(body))}"
    low = body.lower()
    wait_s = retry_after_s(headers, now=now)
    if any(word in low for word in _EXHAUSTED) and status in (400, 402, 403, 429):
        return JudgeError(f"the judge's quota is exhausted ({said}); top it up", ErrorClass.RUN_FATAL)
    if status == 429:
        return JudgeError(
            f"rate limited ({said})",
            ErrorClass.RETRY,
            rate_limited=True,
            retry_after_s=wait_s,
            limits=limits_named(headers),
        )
    if status in (401, 403):
        return JudgeError(
            f"the judge refuses our key ({said}); check judge.api_key_env and the account's rights",
            ErrorClass.RUN_FATAL,
        )
    if status == 402:
        return JudgeError(f"the judge wants payment ({said})", ErrorClass.RUN_FATAL)
    if status == 404 or (status == 400 and any(word in low for word in _UNKNOWN_MODEL)):
        return JudgeError(
            f"the judge does not know the model or the path ({said}); check judge.model and judge.base_url",
            ErrorClass.RUN_FATAL,
        )
    if status in (408, 409, 425) or status >= 500:
        return JudgeError(f"the judge failed ({said})", ErrorClass.RETRY, admitted=True, retry_after_s=wait_s)
    if any(word in low for word in _TOO_LONG) or status == 413:
        return JudgeError(f"the case is too long for the judge ({said})", ErrorClass.CASE_FATAL, admitted=True)
    if any(word in low for word in _FILTERED):
        return JudgeError(f"the judge's content filter refused the case ({said})", ErrorClass.CASE_FATAL, admitted=True)
    if 300 <= status < 400:
        return JudgeError(
            f"the judge redirects ({said}); name the final address as judge.base_url", ErrorClass.RUN_FATAL
        )
    return JudgeError(f"the judge cannot use the request ({said})", ErrorClass.CASE_FATAL, admitted=True)


def _message(body: str) -> str:
    """The beginning of an error body."""
    return ascii(" ".join(body.split())[:300]).strip("'")
