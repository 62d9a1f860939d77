"""The lexical judge as an OpenAI-compatible HTTP endpoint: for trying an `openai` judge without a key, and for the
demo.
"""

import asyncio
import json
from collections import deque
from typing import Any

from aiohttp import web

from queue_eval.core.report import LEXICAL_SERVED
from queue_eval.core.weight import estimated_tokens
from queue_eval.judge.lexical import answer, asked_keys
from queue_eval.ports.clock import Now, Sleep
from queue_eval.ports.judge_error import JudgeError


class LexicalEndpoint:
    """Answers after `latency_s`, and 429 to more than `requests_per_minute` in any sliding `window_s`."""

    def __init__(
        self, *, latency_s: float, requests_per_minute: float | None, window_s: float, now: Now, sleep: Sleep
    ) -> None:
        self._latency_s = latency_s
        self._window_s = window_s
        self._limit = requests_per_minute * window_s / 60 if requests_per_minute else None
        self._now = now
        self._sleep = sleep
        self._admitted_at: deque[float] = deque()
        self.admitted = 0
        self.refused = 0

    def application(self) -> web.Application:
        app = web.Application(client_max_size=8_000_000)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/stats", self._stats)
        return app

    async def _complete(self, request: web.Request) -> web.Response:
        now = self._now()
        if self._limit is not None:
            while self._admitted_at and self._admitted_at[0] <= now - self._window_s:
                self._admitted_at.popleft()
            if len(self._admitted_at) >= self._limit:
                self.refused += 1
                wait_s = self._admitted_at[0] + self._window_s - now
                return _error(429, "rate limit reached", {"Retry-After": f"{wait_s:.3f}"})
            self._admitted_at.append(now)
        self.admitted += 1
        try:
            body = await request.json()
            prompt = prompt_of(body)
            text = json.dumps(answer(prompt, _keys(body, prompt)), ensure_ascii=False)
        except JudgeError as error:
            return _error(400, str(error))
        except (ValueError, LookupError, TypeError):
            return _error(400, "the body is no chat completion request")
        await self._sleep(self._latency_s)
        usage = {"prompt_tokens": estimated_tokens(prompt), "completion_tokens": estimated_tokens(text)}
        message = {"role": "assistant", "content": text}
        return web.json_response(
            {
                "object": "chat.completion",
                "model": LEXICAL_SERVED,
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": usage,
            }
        )

    async def _stats(self, _: web.Request) -> web.Response:
        return web.json_response({"admitted": self.admitted, "refused": self.refused})


def prompt_of(body: dict[str, Any]) -> str:
    """The last message's text, whether it is plain or comes in parts. TypeError or LookupError for anything else."""
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def _keys(body: dict[str, Any], prompt: str) -> frozenset[str]:
    form = body.get("response_format") or {}
    properties = form.get("json_schema", {}).get("schema", {}).get("properties")
    return frozenset(properties) if properties else asked_keys(prompt)


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"message": message}}, status=status, headers=headers)


async def serve(endpoint: LexicalEndpoint, *, port: int, ready: "asyncio.Future[int] | None" = None) -> None:
    """On loopback, until cancelled. Port 0 takes a free one; `ready` gets it."""
    runner = web.AppRunner(endpoint.application(), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        if ready:
            ready.set_result(runner.addresses[0][1])
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
