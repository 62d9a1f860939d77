"""Our limiter beside others in one run, and alone against providers that refuse; about twenty minutes.

python -m loadtest.limiter [--short] [--only table,enforced,tokens,adapt,overhead,slow,away,refusing,crowd]

Writes loadtest/out/limiter.json and pictures beside it, prints a table, and exits with 1 when a figure leaves its range.
"""

import argparse
import asyncio
import itertools
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from loadtest.limiter import virtual
from loadtest.limiter.picture import adaptation, releases
from loadtest.limiter.scenario import WARM_UP_WINDOWS, Outcome, Scenario, measure, quantile
from loadtest.limiter.styles import STYLES
from loadtest.parts import add_only
from loadtest.ranges import check
from queue_eval.core.limits import Charge, Counting, Lane, Limits
from queue_eval.limiter.shared import SharedLimiter
from testkit.provider.counting import refused
from testkit.redis_server import product_server, serving

HERE = Path(__file__).parent
OUT = HERE.parent / "out"
REAL = {"table": 30.0, "enforced": 30.0, "tokens": 36.0, "adapt": 110.0, "overhead": 0.0}  # s
VIRTUAL = {"slow": virtual.slow, "away": virtual.away, "refusing": virtual.refusing, "crowd": virtual.crowd}


def steady(outcome: Outcome) -> dict[str, Any]:
    """Without the first window, in which buckets fill and processes find each other."""
    scenario = outcome.scenario
    warm_s = WARM_UP_WINDOWS * scenario.window_s
    rate = outcome.rate(warm_s, scenario.seconds)
    return {
        "utilisation": round(rate * scenario.window_s / scenario.limit, 4),
        "refused": len(outcome.refused_at),
        "wait_p50_s": round(quantile(outcome.waits_s, 0.5), 2),
        "wait_p99_s": round(quantile(outcome.waits_s, 0.99), 2),
    }


async def table(seconds: float) -> dict[str, Any]:
    """No call is refused: what arrived is judged afterwards, by each way of counting."""
    rows = {}
    for (style, busy), window in itertools.product(
        [(style, busy) for style in STYLES for busy in (8, 2)], ("sliding",)
    ):
        scenario = Scenario(style=style, busy=busy, window=window, seconds=seconds)
        outcome = await measure(scenario)
        judged = {
            f"refused_by_{kind}": refused(outcome.arrivals, kind, scenario.limit, scenario.window_s)
            for kind in ("sliding", "fixed", "bucket")
        }
        name = style if busy == 8 else f"{style}; 2 of 8 busy"
        rows[name] = {**steady(outcome), **judged}
        if busy == 8:
            releases(OUT / f"releases-{style.split(',')[0].replace(' ', '-')}.svg", style, outcome)
        _print_row(name, rows[name])
    return rows


async def enforced(seconds: float) -> dict[str, Any]:
    """The provider refuses by its own count."""
    rows = {}
    for window, busy in itertools.product(("sliding", "fixed", "bucket"), (8, 2)):
        outcome = await measure(Scenario(window=window, enforced=window, busy=busy, seconds=seconds))
        name = window if busy == 8 else f"{window}_2_of_8_busy"
        rows[name] = steady(outcome)
        _print_row(f"ours, a provider that refuses: {name}", rows[name])
    return rows


async def tokens(seconds: float) -> dict[str, Any]:
    """Bound by tokens; a call uses .4 to .8 of its estimate."""
    scenario = Scenario(
        tokens=120_000, estimate=1000, output_tokens=(300, 700), enforced="sliding", seconds=seconds, tasks=16
    )
    outcome = await measure(scenario)
    warm_s = WARM_UP_WINDOWS * scenario.window_s
    row = {
        **steady(outcome),
        "utilisation": round(outcome.tokens_per_s(warm_s, seconds) * scenario.window_s / scenario.tokens, 4),
        "fullest_window": round(outcome.fullest_window() / scenario.tokens, 4),
    }
    _print_row("ours, bound by tokens", row)
    return row


async def adapt(seconds: float) -> dict[str, Any]:
    """The true limit falls to 60 % of the configured one for a while, unannounced; then it is back."""
    low_s, back_s = seconds * 0.14, seconds * 0.64
    scenario = Scenario(enforced="sliding", seconds=seconds, changes=((low_s, 0.6), (back_s, 1.0)))
    rows = {}
    for name, shown in (("by_429s", False), ("by_headers", True)):
        outcome = await measure(replace(scenario, headers=shown, provider_headers="openai" if shown else "none"))
        full = scenario.limit / scenario.window_s
        # the provider's window still holds what it admitted at the old limit: judged from the next window on
        low = outcome.rate(low_s + scenario.window_s, back_s) / (0.6 * full)
        halves = range(int(2 * back_s), int(2 * seconds) - 8)
        fast = next((n / 2 for n in halves if outcome.rate(n / 2, n / 2 + 4) >= 0.95 * full), None)
        rows[name] = {
            "refused": len(outcome.refused_at),
            "efficiency": round(low, 4),
            "back_at_95_percent_after_s": None if fast is None else round(fast - back_s, 1),
        }
        adaptation(OUT / f"adapt-{name}.svg", outcome)
        _print_row(f"ours, true limit at 60 % and back, {name}", rows[name])
    return rows


async def overhead(_seconds: float) -> dict[str, Any]:
    """The limiter alone: permits per second without a limit, and what 10,000 waiters cost."""
    server = product_server()
    serial = itertools.count()
    async with server as url, Redis.from_url(url) as redis:

        def limiter(name: str, limits: Limits) -> SharedLimiter:
            lane = Lane(name="bench", weight=1.0, limits=limits, counting=Counting())
            return SharedLimiter(
                redis, key=name, process=name, lane=lane, adjusts=True, now=time.time, new_token=lambda: str(next(serial))
            )  # fmt: skip

        free, count = limiter("free", Limits()), 50_000

        async def some() -> None:
            for _ in range(count // 500):
                await free.acquire(Charge())

        started = time.monotonic()
        await asyncio.gather(*(some() for _ in range(500)))
        per_s = count / (time.monotonic() - started)
        await free.close()

        full = limiter("full", Limits(requests=600.0))
        waiting = [asyncio.create_task(full.acquire(Charge())) for _ in range(10_000)]
        await asyncio.sleep(2)
        await redis.config_resetstat()
        cpu_s, started = time.process_time(), time.monotonic()
        await asyncio.sleep(5)
        elapsed_s = time.monotonic() - started
        calls = (await redis.info("commandstats"))["cmdstat_evalsha"]
        row = {
            "permits_per_s": round(per_s),
            "redis_calls_per_s_with_10000_waiting": round(calls["calls"] / elapsed_s, 1),
            "redis_ms_per_call_with_10000_waiting": round(calls["usec_per_call"] / 1000, 3),
            "cpu_share_with_10000_waiting": round((time.process_time() - cpu_s) / elapsed_s, 4),
        }
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await full.close()
    _print_row("the limiter alone", row)
    return row


def _print_row(name: str, row: dict[str, Any]) -> None:
    print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in row.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="about half the time")
    add_only(parser, (*REAL, *VIRTUAL))
    args = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    figures: dict[str, Any] = {}
    for part in args.only:
        if part in VIRTUAL:
            with serving() as server:
                figures[part] = VIRTUAL[part](server)
            _print_row(part, figures[part])
        else:
            figures[part] = asyncio.run(globals()[part](REAL[part] * (0.6 if args.short and part != "adapt" else 1.0)))
    (OUT / "limiter.json").write_text(json.dumps(figures, indent=2) + "\n")
    sys.exit(check(HERE / "ranges.toml", figures, only=args.only))


if __name__ == "__main__":
    main()
