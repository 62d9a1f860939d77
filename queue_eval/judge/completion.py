"""A chat completion's body read: the text that the model gave, wherever the server has put it, and what it used."""

import json
from typing import Any

from queue_eval.core.attempt import ErrorClass
from queue_eval.judge.secrets import Secrets
from queue_eval.ports.judge import Answer, TokenChoice
from queue_eval.ports.judge_error import JudgeError

MAX_TOKENS = 1_000_000  # of one call: what an answer claims beyond it is not believed
_TEXT_PARTS = (None, "text", "output_text")


def read_completion(body: Any, secrets: Secrets) -> Answer:
    """JudgeError for what is no chat completion, brings no text, or was refused by the judge's own filter."""
    try:
        choice = body["choices"][0]
        message = choice["message"]
        text = _text(message)
        usage = body.get("usage") or {}
        input_tokens, output_tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
        served, finish = body.get("model"), choice.get("finish_reason")
        refused = message.get("refusal")
        tokens = _tokens(choice.get("logprobs"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        shown = ascii(secrets.blanked(json.dumps(body, default=str)[:2000])[:80])
        raise JudgeError(
            f"the judge's answer is no chat completion: {shown}", ErrorClass.RETRY, admitted=True, quoted=shown
        ) from None
    if finish == "content_filter" or refused:
        raise JudgeError("the judge refused the case (content filter)", ErrorClass.CASE_FATAL, admitted=True)
    is_cut = finish == "length"
    if text is None and not is_cut:
        raise JudgeError("the judge's answer has no text", ErrorClass.RETRY, admitted=True)
    return Answer(
        text=secrets.without_known(_writable(text or "")),
        input_tokens=_count(input_tokens),
        output_tokens=_count(output_tokens),
        model=secrets.without_known(_writable(served))[:200] if isinstance(served, str) else None,
        is_cut=is_cut,
        tokens=tokens,
    )


def _tokens(logprobs: Any) -> tuple[TokenChoice, ...] | None:
    """None where the server returns nothing of the answer's tokens."""
    try:
        return tuple(
            TokenChoice(
                str(choice["token"]),
                float(choice["logprob"]),
                tuple(
                    (str(other["token"]), float(other["logprob"]))
                    for other in choice.get("top_logprobs") or ()
                    if other.get("logprob") is not None
                ),
            )
            for choice in logprobs["content"]
        )
    except (LookupError, TypeError, ValueError, AttributeError):
        return None


def _text(message: dict[str, Any]) -> str | None:
    """Return the content, or its text parts; else a tool's arguments, or what a server took for reasoning.

    Prose beside a tool's arguments is what the judge adds to them.
    """
    content = message.get("content")
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict) and part.get("type") in _TEXT_PARTS]
        content = "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    tools = [call["function"]["arguments"] for call in message.get("tool_calls") or ()]
    arguments = next((text for text in tools if isinstance(text, str)), None)
    if isinstance(content, str) and content.strip() and ("{" in content or arguments is None):
        return content
    if arguments is not None:
        return arguments
    for name in ("reasoning_content", "reasoning"):
        if isinstance(reasoning := message.get(name), str) and "{" in reasoning:
            return reasoning
    return content if isinstance(content, str) else None


def _writable(text: str) -> str:
    """Without half characters, which no file takes."""
    return text.encode(errors="replace").decode()


def _count(tokens: Any) -> int | None:
    """A believable number of tokens, else None."""
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and 0 <= tokens <= MAX_TOKENS else None
