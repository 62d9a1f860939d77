"""One measurement: a provider, a Redis, and a number of processes that call for a while. What arrived is the provider's own count."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict, dataclass, field

import aiohttp
from redis.asyncio import Redis

from loadtest.limiter.styles import Setting
from queue_eval.core.limiter_stats import LimiterStats
from queue_eval.limiter.view import LimiterView
from testkit.measured import ROOT
from testkit.redis_server import product_server

START_S = 4.0  # for the processes to import and connect
WARM_UP_WINDOWS = 1


@dataclass(frozen=True, kw_only=True)
class Scenario:
    style: str = "ours"
    window: str = "sliding"  # what the limiter is given
    enforced: str = "none"  # how the provider counts and refuses; none: it admits all, and is judged by its arrivals
    limit: float = 600.0  # requests per window
    tokens: float = 0.0  # per window
    window_s: float = 6.0
    seconds: float = 30.0
    processes: int = 8
    busy: int = 8
    tasks: int = 32
    estimate: int = 100  # tokens a call is charged first
    output_tokens: tuple[int, int] = (20, 20)
    latency: str = "lognormal:0.05:0.5"
    provider_headers: str = "none"
    headers: bool = False
    changes: tuple[tuple[float, float], ...] = ()  # (seconds after the start, the provider's share of its limit)


@dataclass
class Outcome:
    scenario: Scenario
    started_at: float
    arrivals: list[float]  # every request, seconds after the start
    refused_at: list[float]
    used: list[int]  # tokens of each request; 0: refused
    waits_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    limiter: LimiterStats | None = None  # by its own word, at the end

    def rate(self, start_s: float, end_s: float) -> float:
        """Admitted requests per second."""
        arrived = sum(start_s <= at < end_s for at in self.arrivals)
        return (arrived - sum(start_s <= at < end_s for at in self.refused_at)) / (end_s - start_s)

    def tokens_per_s(self, start_s: float, end_s: float) -> float:
        used = sum(used for at, used in zip(self.arrivals, self.used, strict=True) if start_s <= at < end_s)
        return used / (end_s - start_s)

    def fullest_window(self) -> int:
        """The most tokens in any stretch of the provider's window."""
        fullest = inside = first = 0
        for at, used in zip(self.arrivals, self.used, strict=True):
            inside += used
            while self.arrivals[first] <= at - self.scenario.window_s:
                inside -= self.used[first]
                first += 1
            fullest = max(fullest, inside)
        return fullest


@asynccontextmanager
async def provider(scenario: Scenario) -> AsyncIterator[str]:
    least, most = scenario.output_tokens
    command = [sys.executable, "-m", "testkit.provider", "--latency", scenario.latency, "--retry-after", "fraction"]
    command += ["--headers", scenario.provider_headers, "--output-tokens", str(least), str(most)]
    command += ["--window-s", str(scenario.window_s)]
    if scenario.enforced != "none":
        command += ["--kind", scenario.enforced]
        if scenario.tokens:
            command += ["--tokens", str(scenario.tokens)]
        else:
            command += ["--requests", str(scenario.limit)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout
            yield (await asyncio.to_thread(process.stdout.readline)).strip()
        finally:
            process.terminate()


Trouble = Callable[["list[subprocess.Popen[str]]", float], Awaitable[None]]


async def measure(scenario: Scenario, trouble: Trouble | None = None, *, redis_url: str | None = None) -> Outcome:
    """`trouble` may do to the processes what it likes; it is called when they start. What a killed one knew is lost.

    `redis_url` names an empty Redis; without it one is started.
    """
    server = nullcontext(redis_url) if redis_url else product_server()
    async with server as shared_redis, provider(scenario) as url:
        started_at = time.time() + START_S
        clients = [_client(scenario, shared_redis, url, n, started_at) for n in range(scenario.processes)]
        changes = asyncio.create_task(_change(scenario, url, started_at))
        if trouble:
            await trouble(clients, started_at)
        outputs = await asyncio.gather(*(asyncio.to_thread(client.communicate) for client in clients))
        await changes
        async with aiohttp.ClientSession() as session, session.get(f"{url.removesuffix('/v1')}/stats") as response:
            stats = await response.json()
        async with Redis.from_url(shared_redis) as redis:
            limiter = await LimiterView(redis, key="bench").stats()
    if any(client.returncode not in (0, -signal.SIGKILL) for client in clients):
        raise SystemExit("a process of the measurement failed; its message stands above")
    shown = [json.loads(out.splitlines()[-1]) for out, _ in outputs if out]
    return Outcome(
        scenario,
        started_at,
        arrivals=[at - started_at for at in stats["arrivals"]],
        refused_at=[at - started_at for at in stats["refused_at"]],
        used=stats["used"],
        waits_s=sorted(wait for one in shown for wait in one["waits_s"]),
        cpu_s=sum(one["cpu_s"] for one in shown),
        limiter=limiter,
    )


def _client(scenario: Scenario, redis_url: str, url: str, number: int, started_at: float) -> "subprocess.Popen[str]":
    setting = Setting(
        redis_url=redis_url, key="bench", process=f"p{number}", processes=scenario.processes, limit=scenario.limit if not scenario.tokens else 1e6,
        tokens=scenario.tokens, window_s=scenario.window_s, window=scenario.window, headers=scenario.headers,
    )  # fmt: skip
    command = [sys.executable, "-m", "loadtest.limiter.client", "--style", scenario.style, "--url", url]
    command += ["--setting", json.dumps(asdict(setting))]
    command += ["--tasks", str(scenario.tasks if number < scenario.busy else 0), "--estimate", str(scenario.estimate)]
    command += ["--start", str(started_at), "--until", str(started_at + scenario.seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


async def _change(scenario: Scenario, url: str, started_at: float) -> None:
    for after_s, share in scenario.changes:
        await asyncio.sleep(max(0.0, started_at + after_s - time.time()))
        rule = {"kind": scenario.enforced, "limit": scenario.limit * share, "window_s": scenario.window_s}
        async with aiohttp.ClientSession() as session:
            await session.post(f"{url.removesuffix('/v1')}/rules", json=[rule])


def quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
