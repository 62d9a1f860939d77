"""An OpenAI-compatible judge on loopback that counts for itself and fails on demand."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from queue_eval.judge.lexical import answer, asked_keys


@dataclass
class Fault:
    """What a request gets instead of an answer."""

    status: int = 200
    body: str = '{"error": {"message": "told to fail"}}'
    headers: dict[str, str] = field(default_factory=dict)
    text: str | None = None  # with status 200: the message's content
    hang_s: float = 0.0
    cut: bool = False  # close the connection without an answer


@dataclass
class Provider:
    """Runs in a thread. `fault(n, body)` is asked before request n, counted from 1."""

    latency_s: float = 0.0
    fault: Callable[[int, dict[str, Any]], Fault | None] = lambda _n, _body: None
    requests: int = 0
    admitted: int = 0  # answered with anything but 401, 403, 404 and 429
    statuses: Counter[int] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    def start(self) -> "Provider":
        self._loop = asyncio.new_event_loop()
        self._runner = self._loop.run_until_complete(self._serve())
        self._port = self._runner.addresses[0][1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    async def _serve(self) -> web.AppRunner:
        app = web.Application(client_max_size=16_000_000)
        app.router.add_post("/v1/chat/completions", self._complete)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        self.keys.add(request.headers.get("Authorization", ""))
        body = await request.json()
        self.bodies.append(body)
        fault = self.fault(self.requests, body)
        if fault and fault.hang_s:
            await asyncio.sleep(fault.hang_s)
        if fault and fault.cut:
            self.admitted += 1
            assert request.transport
            request.transport.close()
            return web.Response()
        if fault and fault.status != 200:
            self.statuses[fault.status] += 1
            self.admitted += fault.status not in (401, 403, 404, 429)
            return web.Response(status=fault.status, text=fault.body, headers=fault.headers)
        self.admitted += 1
        self.statuses[200] += 1
        prompt = body["messages"][-1]["content"]
        text = fault.text if fault and fault.text is not None else json.dumps(answer(prompt, _keys(body, prompt)))
        await asyncio.sleep(self.latency_s)
        usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": len(text) // 4}
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": usage})

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


def _keys(body: dict[str, Any], prompt: str) -> frozenset[str]:
    form = body.get("response_format") or {}
    properties = form.get("json_schema", {}).get("schema", {}).get("properties")
    return frozenset(properties) if properties else asked_keys(prompt)
