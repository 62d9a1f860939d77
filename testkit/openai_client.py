"""Our client of an OpenAI-compatible server, as a test needs it."""

from typing import Any

from queue_eval.core.settings.judge import OpenAIJudge
from queue_eval.judge.openai import OpenAIClient


def client_of(base_url: str, **settings: Any) -> OpenAIClient:
    judge = OpenAIJudge.model_validate({"type": "openai", "base_url": base_url, "model": "m", **settings})
    return OpenAIClient(judge, api_key=lambda: None, now=lambda: 0.0)
