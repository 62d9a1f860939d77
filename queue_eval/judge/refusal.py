"""What an HTTP error of a judge means for the run.

Status and codes decide; words are read last, and only to hold the run or to name a case's fault.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from queue_eval.core.attempt import ErrorClass
from queue_eval.judge.error_body import ErrorBody
from queue_eval.judge.headers import limits_named, retry_after_s
from queue_eval.judge.secrets import Secrets
from queue_eval.ports.judge_error import JudgeError, Trait

RETRY, THE_CASE, HOLD = ErrorClass.RETRY, ErrorClass.CASE_FATAL, ErrorClass.RUN_FATAL

_QUOTA_CODES = frozenset(
    (
        "insufficient_quota",
        "quota_exceeded",
        "quotaexceeded",
        "billing_hard_limit_reached",
        "billing_not_active",
        "budget_exceeded",
        "exceeded_budget",
        "insufficient_balance",
        "insufficient_credits",
        "credit_balance_too_low",
        "payment_required",
        "arrearage",
    )
)
_QUOTA_WORDS = (
    "budget has been exceeded",
    "exceeded budget",
    "exceededbudget",
    "insufficient credits",
    "insufficient balance",
    "credit balance is too low",
    "exceeded your current quota",
    "billing hard limit",
    "quota exceeded",
)
_MODEL_CODES = frozenset(("model_not_found", "modelnotfound", "deploymentnotfound", "invalid_model"))
# LiteLLM's, of budgets of its deployments: as 429, by words alone, of which a prompt cannot be the first
_BUDGET_BEGINS = "no deployments available - crossed budget"
_MODEL_WORDS = (
    "invalid model name passed in model=",
    "does not exist",
    "unknown model",
    "model not found",
    "no such model",
)
_LENGTH_CODES = frozenset(
    ("context_length_exceeded", "exceed_context_size_error", "string_above_max_length", "request_too_large")
)
_LENGTH_WORDS = (
    "context_length_exceeded", "maximum context length", "context window", "too many tokens", "contextwindowexceeded",
    "string too long", "request too large", "prompt is too long",
)  # fmt: skip
_FILTER_WORDS = ("content_filter", "content_policy", "responsibleai", "content management policy")
_SAMPLING_CODES = frozenset(("json_validate_failed",))
_SAMPLING_WORDS = ("failed to generate json",)
# of a 503 that means too many calls at once, and no trouble: Ollama's, OpenAI's
_BUSY_CODES = frozenset(("slow_down",))
_BUSY_WORDS = ("maximum pending requests",)
_BAD_REQUEST = (400, 413, 422)
_TIMEOUTS = (408, 504, 524)  # of a gateway before the judge; the last is Cloudflare's


def refusal(  # noqa: C901, PLR0911 - a table of answers, read from top to bottom
    status: int, body: str, headers: Mapping[str, str], secrets: Secrets, *, now: float
) -> JudgeError:
    """Class an answer that is not 2xx, or an error within one that is.

    A rate limit and a rejected key were not admitted; the rest may have cost something.
    """
    error = ErrorBody.of(body)
    low = error.message.lower() + " " + " ".join(sorted(error.codes))
    made = partial(_made, f"HTTP {status}", _message(secrets.blanked(body)))
    wait_s = retry_after_s(headers, now=now)
    wait_s = error.retry_after_s if wait_s is None else wait_s
    is_limit = status == 429 or error.is_rate_limit
    is_used_up = _is_used_up(status, error, low, is_limit=is_limit)
    if is_used_up and wait_s is None:
        # a quota of a minute has the same words
        traits = Trait.QUOTA if is_limit or status in (403, 503) else Trait.NONE
        return made(HOLD, "the judge's quota or budget is used up", "; top it up", traits=traits)
    if is_limit or is_used_up or _is_busy(status, error, low):
        limits = limits_named(headers)
        return made(RETRY, "rate limited", traits=Trait.RATE_LIMITED, retry_after_s=wait_s, limits=limits)
    if status in (401, 403):
        return made(HOLD, "the judge refuses our key", "; check judge.api_key_env and the account's rights")
    if status == 402:
        return made(HOLD, "the judge wants payment")
    if status == 404 or (status in _BAD_REQUEST and (error.codes & _MODEL_CODES or _any(_MODEL_WORDS, low))):
        remedy = "; check judge.model and judge.base_url"
        return made(HOLD, "the judge does not know the model or the path", remedy)
    if status == 503 and "<html" in body.lower():
        # nginx' limit_req, as it comes; a judge that is down looks alike
        return made(
            RETRY, "a proxy before the judge turned the call away", retry_after_s=wait_s, traits=Trait.PROXYS_OWN
        )
    if status in _TIMEOUTS:
        return made(
            RETRY, "the judge did not answer in time", admitted=True, retry_after_s=wait_s, traits=Trait.TIMEOUT
        )
    if status in (409, 425) or status >= 500:
        return made(RETRY, "the judge failed", admitted=True, retry_after_s=wait_s)
    if error.codes & _LENGTH_CODES or _any(_LENGTH_WORDS, low) or status == 413:
        return made(THE_CASE, "the case is too long for the judge", admitted=True, traits=Trait.REJECTED)
    if _any(_FILTER_WORDS, low):
        return made(THE_CASE, "the judge's content filter refused the case", admitted=True, traits=Trait.REJECTED)
    if error.codes & _SAMPLING_CODES or _any(_SAMPLING_WORDS, low):
        return made(RETRY, "the judge's answer was no JSON", admitted=True, traits=Trait.INVALID_ANSWER)
    if 300 <= status < 400:
        return made(HOLD, "the judge redirects", "; name the final address as judge.base_url")
    # whether it means this case or every one, a neutral question shows
    return made(HOLD, "the judge cannot use the request", admitted=True, traits=Trait.REJECTED | Trait.UNEXPLAINED)


def _is_used_up(status: int, error: ErrorBody, low: str, *, is_limit: bool) -> bool:
    """Words count only where no status or code shows a rate limit."""
    in_words = status in (400, 402, 403, 422) and not is_limit and _any(_QUOTA_WORDS, low)
    return bool(error.codes & _QUOTA_CODES) or in_words or (status == 429 and low.startswith(_BUDGET_BEGINS))


def _is_busy(status: int, error: ErrorBody, low: str) -> bool:
    return status == 503 and bool(error.codes & _BUSY_CODES or _any(_BUSY_WORDS, low))


def _made(status: str, words: str, kind: ErrorClass, what: str, remedy: str = "", **facts: Any) -> JudgeError:
    return JudgeError(f"{what} ({status}: {words}){remedy}", kind, quoted=words, **facts)


def _any(words: tuple[str, ...], text: str) -> bool:
    return any(word in text for word in words)


def _message(body: str) -> str:
    """The beginning of an error body."""
    return ascii(" ".join(body.split())[:300]).strip("'")
