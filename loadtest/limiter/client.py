"""One process of a measurement: tasks that call the provider as fast as a limiter lets them. Prints one JSON line."""

import argparse
import asyncio
import json
import os
import random
import resource
import time
from dataclasses import dataclass, field

import aiohttp

from loadtest.limiter.styles import STYLES, Limiting, Setting
from queue_eval.core.limits import Charge
from queue_eval.judge.headers import limits_named, retry_after_s

PROMPT_TOKENS = 100


@dataclass
class Seen:
    sent: int = 0
    refused: int = 0
    waits_s: list[float] = field(default_factory=list)


async def call(session: aiohttp.ClientSession, url: str, limiting: Limiting, estimate: Charge, seen: Seen) -> None:
    asked_at = time.monotonic()
    permit = await limiting.acquire(estimate)
    seen.waits_s.append(time.monotonic() - asked_at)
    seen.sent += 1
    body = {"model": "m", "messages": [{"role": "user", "content": "word" * PROMPT_TOKENS}]}
    async with session.post(f"{url}/chat/completions", json=body) as response:
        answer = await response.json()
        headers = {name.lower(): value for name, value in response.headers.items()}
    if response.status == 429:
        seen.refused += 1
        await limiting.refused(permit, retry_after_s(headers, now=time.time()), limits_named(headers))
        return
    usage = answer["usage"]
    used = Charge(input_tokens=usage["prompt_tokens"], output_tokens=usage["completion_tokens"])
    limiting.answered(permit, used, limits_named(headers))


async def work(args: argparse.Namespace, setting: Setting) -> Seen:
    seen, estimate = Seen(), Charge(input_tokens=PROMPT_TOKENS, output_tokens=args.estimate - PROMPT_TOKENS)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        STYLES[args.style](setting) as limiting,
    ):

        async def loop() -> None:
            while time.time() < args.until:
                await call(session, args.url, limiting, estimate, seen)

        await asyncio.sleep(max(0.0, args.start - time.time()))
        tasks = [asyncio.create_task(loop()) for _ in range(args.tasks)]
        await asyncio.wait(tasks, timeout=max(0.0, args.until - time.time())) if tasks else await asyncio.sleep(
            max(0.0, args.until - time.time())
        )
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--style", required=True)
    parser.add_argument("--setting", required=True, help="JSON")
    parser.add_argument("--url", required=True)
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--estimate", type=int, default=PROMPT_TOKENS)
    parser.add_argument("--start", type=float, required=True)
    parser.add_argument("--until", type=float, required=True)
    args = parser.parse_args()
    random.seed(os.getpid())
    seen = asyncio.run(work(args, Setting(**json.loads(args.setting))))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "sent": seen.sent,
                "refused": seen.refused,
                "waits_s": [round(wait, 4) for wait in seen.waits_s],
                "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
