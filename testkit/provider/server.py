"""The provider's HTTP side: counts, admits or refuses, and answers."""

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from testkit.provider import counting
from testkit.provider.wire import SPELLINGS, Fault, limit_headers

NOT_ADMITTED = (401, 403, 404, 429)
PLAIN_ANSWER = '{"score": 7, "reason": "plain"}'


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One limit of the provider. `charges`: `used` tokens, or `asked` for (max_tokens included)."""

    dimension: str = "requests"  # or input, output, tokens
    kind: str = "sliding"  # see counting.counter
    limit: float  # per window
    window_s: float = 60.0
    charges: str = "used"


@dataclass
class Provider:
    """Serves in a thread of its own. `fault(n, body)` is asked before request n, counted from 1."""

    latency: Callable[[], float] = lambda: 0.0
    fault: Callable[[int, dict[str, Any]], Fault | None] = lambda _n, _body: None
    rules: tuple[Rule, ...] = ()
    retry_after: str = "seconds"
    headers: str = "none"
    token_choices: Callable[[dict[str, Any]], list[dict[str, Any]] | None] = lambda _body: (
        None
    )  # who asks for logprobs gets
    lexical: bool = True  # answers what metrics ask; else a plain text of `output_tokens`
    output_tokens: Callable[[], int] = lambda: 20
    keep_bodies: bool = True
    host: str = "127.0.0.1"
    serves: int | None = None  # requests at a time, the others wait for their turn; None: all
    requests: int = 0
    admitted: int = 0  # answered with anything but NOT_ADMITTED
    whose: Callable[[dict[str, Any]], str] = lambda _body: ""  # what a request is counted for
    admitted_by: Counter[str] = field(default_factory=Counter)
    used_by: Counter[str] = field(default_factory=Counter)  # tokens
    statuses: Counter[int] = field(default_factory=Counter)
    arrivals: list[float] = field(default_factory=list)  # of every request that reached the limits
    used: list[int] = field(default_factory=list)  # tokens of each of these; 0: refused
    refused_at: list[float] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    # --- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> "Provider":
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self.serve())
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    async def serve(self, port: int = 0) -> None:
        # now, for a tenth of a second: at the first request it held up those behind it, and a window's count began late
        from queue_eval.judge import endpoint, lexical  # noqa: F401

        self.limit(self.rules)
        self._turns: contextlib.AbstractAsyncContextManager[None] = (
            asyncio.Semaphore(self.serves) if self.serves else contextlib.nullcontext()
        )
        app = web.Application(client_max_size=16_000_000)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/stats", self._stats)
        app.router.add_post("/rules", self._new_rules)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, port, backlog=1024).start()
        self.port = int(self._runner.addresses[0][1])

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/v1"

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        await self._runner.cleanup()
        hanging = asyncio.all_tasks() - {asyncio.current_task()}
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)

    # --- limits --------------------------------------------------------------------------------------------------------

    def limit(self, rules: tuple[Rule, ...]) -> None:
        """From now on; what was admitted before is forgotten only where the kind or the window changes."""
        before = {(r.dimension, r.kind, r.window_s): c for r, c in getattr(self, "_counters", [])}
        self.rules = rules
        self._counters: list[tuple[Rule, counting.Counter]] = []
        for rule in rules:
            known = before.get((rule.dimension, rule.kind, rule.window_s))
            if isinstance(known, counting.SlidingWindow | counting.FixedWindow) and rule.kind != "second":
                known.limit = rule.limit
            else:
                known = counting.counter(rule.kind, rule.limit, rule.window_s)
            self._counters.append((rule, known))

    def _admit(self, now: float, used: dict[str, float], asked: dict[str, float]) -> float:
        """0 and charged, or the seconds to wait."""
        amounts = [
            (counter, (used if rule.charges == "used" else asked)[rule.dimension]) for rule, counter in self._counters
        ]
        wait_s = max((counter.wait_s(now, amount) for counter, amount in amounts), default=0.0)
        if not wait_s:
            for counter, amount in amounts:
                counter.take(now, amount)
        return wait_s

    def _limit_headers(self, now: float) -> dict[str, str]:
        found: dict[str, str] = {}
        for rule, counter in self._counters:
            found |= limit_headers(self.headers, rule.dimension, rule.limit * 60 / rule.window_s, counter.left(now))
        return found

    # --- requests ------------------------------------------------------------------------------------------------------

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        now = time.time()
        self.requests += 1
        self.keys.add(request.headers.get("Authorization", ""))
        body = await request.json()
        if self.keep_bodies:
            self.bodies.append(body)
        fault = self.fault(self.requests, body)
        if fault and fault.hang_s:
            await asyncio.sleep(fault.hang_s)
        if fault and fault.status != 200 and not fault.cut:
            self.statuses[fault.status] += 1
            if fault.status not in NOT_ADMITTED:
                self._count(body)
            return web.Response(status=fault.status, text=fault.body, headers=fault.headers)
        text, usage = self._answer(body, fault)
        self.arrivals.append(now)
        asked_output = body.get("max_completion_tokens") or usage["completion_tokens"]
        wait_s = self._admit(
            now,
            _amounts(usage["prompt_tokens"], usage["completion_tokens"]),
            _amounts(usage["prompt_tokens"], asked_output),
        )
        headers = self._limit_headers(now)
        if wait_s:
            self.statuses[429] += 1
            self.refused_at.append(now)
            self.used.append(0)
            headers |= SPELLINGS[self.retry_after](wait_s, now)
            return web.json_response({"error": {"message": "slow down"}}, status=429, headers=headers)
        self._count(body)
        self.used.append(usage["prompt_tokens"] + usage["completion_tokens"])
        self.used_by[self.whose(body)] += self.used[-1]
        if fault and fault.cut:
            if request.transport:  # None: the client is gone already
                request.transport.close()
            return web.Response()
        self.statuses[200] += 1
        async with self._turns:
            await asyncio.sleep(self.latency() if fault is None or fault.latency_s is None else fault.latency_s)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        if body.get("logprobs") and (shown := self.token_choices(body)):
            choice["logprobs"] = {"content": shown}
        return web.json_response({"choices": [choice], "usage": usage}, headers=headers)

    def _count(self, body: dict[str, Any]) -> None:
        self.admitted += 1
        self.admitted_by[self.whose(body)] += 1

    def _answer(self, body: dict[str, Any], fault: Fault | None) -> tuple[str, dict[str, int]]:
        from queue_eval.judge.endpoint import prompt_of

        prompt = prompt_of(body)
        if fault and fault.text is not None:
            text = fault.text
        elif self.lexical:
            from queue_eval.judge.lexical import answer, asked_keys

            form = body.get("response_format") or {}
            properties = form.get("json_schema", {}).get("schema", {}).get("properties")
            text = json.dumps(answer(prompt, frozenset(properties) if properties else asked_keys(prompt)))
        else:
            return PLAIN_ANSWER, {"prompt_tokens": len(prompt) // 4, "completion_tokens": self.output_tokens()}
        return text, {"prompt_tokens": len(prompt) // 4, "completion_tokens": len(text) // 4}

    # --- for measurements ------------------------------------------------------------------------------------------

    async def _stats(self, _: web.Request) -> web.Response:
        return web.json_response(
            {
                "requests": self.requests,
                "admitted": self.admitted,
                "used": self.used,
                "statuses": self.statuses,
                "arrivals": self.arrivals,
                "refused_at": self.refused_at,
            }
        )

    async def _new_rules(self, request: web.Request) -> web.Response:
        self.limit(tuple(Rule(**rule) for rule in await request.json()))
        return web.json_response({"ok": True})


def _amounts(input_tokens: float, output_tokens: float) -> dict[str, float]:
    return {"requests": 1, "input": input_tokens, "output": output_tokens, "tokens": input_tokens + output_tokens}
