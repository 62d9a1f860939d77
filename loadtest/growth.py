"""What a case costs as a run grows: from 100 cases to 100,000, from 1 worker to 64, from 1 case in flight to 1,000.

    python -m loadtest.growth [--short]

Cases cost no judge, so what is left is ours: enqueue, claim and finish, finalize with the report. Results are as durable as
any. Writes loadtest/out/growth.json and a picture.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from loadtest.picture import Chart
from loadtest.ranges import OUT, RANGES, check, written
from queue_eval.core.settings.workers import WorkerSettings
from queue_eval.ports.queue import Entry
from queue_eval.queue.claim import WorkerIdentity
from queue_eval.wiring.queues import RunQueue
from testkit.measured import run
from testkit.redis_server import cpu_s, product_server
from testkit.workload import write_cases, write_eval

CASES, SHORT_CASES = (100, 1_000, 10_000, 100_000), (100, 1_000, 10_000)
WORKERS, IN_FLIGHT = (1, 4, 16, 64), (1, 10, 100, 1_000)
EACH = 5_000  # cases where their number is not what grows
CLAIM_AT_ONCE = 4
KEYS = ("growth", "growth_by")  # of the summary


def worked(cases: int, in_flight: int) -> dict[str, float]:
    """A whole run of one worker in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cases(folder / "cases.jsonl", cases)
        path = write_eval(folder, metrics=[{"type": "loadtest.noop_metric:NoOp"}], store=str(folder / "runs"))
        spent = run([sys.executable, "-m", "loadtest.worker_alone", str(path), str(in_flight), "--finalize"])
    if spent.code:
        raise SystemExit(spent.out)
    figures: dict[str, float] = json.loads(spent.out.splitlines()[-1])
    if figures["scored"] != cases:
        raise SystemExit(f"scored {figures['scored']} of {cases}")
    return figures


def by_cases(sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    rows = []
    for cases in sizes:
        took = worked(cases, 64)
        # `report`: the part of `finalize` that its tables, writers and pages take
        steps = {
            "enqueue": took["enqueue_s"],
            "claim_finish": took["elapsed_s"],
            "finalize": took["finalize_s"],
            "report": took["report_s"],
        }
        rows.append({"cases": cases, **{f"{step}_ms_per_case": round(1000 * s / cases, 3) for step, s in steps.items()}, "rss_mb": took["rss_mb"]})  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    return rows


def by_in_flight() -> dict[str, float]:
    """CPU of the worker, milliseconds a case."""
    rows = {str(n): round(1000 * worked(EACH, n)["cpu_s"] / EACH, 3) for n in IN_FLIGHT}
    print(json.dumps({"worker_cpu_ms_by_in_flight": rows}), flush=True)
    return rows


async def by_workers() -> dict[str, float]:
    """Redis's own CPU for a claim and a finish, milliseconds a case, while that many workers' queue clients share it, in one process."""
    server, rows = product_server(), {}
    async with server as url, Redis.from_url(url) as redis:
        for workers in WORKERS:
            queue = RunQueue.of(redis, f"workers-{workers}")
            await queue.enqueueing.open("i")
            entries = [Entry(case_id=f"{n:024x}", payload=b"x" * 900, size_bytes=900, description="") for n in range(EACH)]  # fmt: skip
            await queue.enqueueing.enqueue(entries)
            await queue.enqueueing.seal(EACH)
            before = await cpu_s(redis)
            await asyncio.gather(*(_claim_all(queue, f"w{n}") for n in range(workers)))
            rows[str(workers)] = round(1000 * (await cpu_s(redis) - before) / EACH, 3)
    print(json.dumps({"redis_cpu_ms_by_workers": rows}), flush=True)
    return rows


async def _claim_all(queue: RunQueue, name: str) -> None:
    identity = WorkerIdentity(name=name, hostname="h", pid=1, concurrency=CLAIM_AT_ONCE, born=time.strftime("%FT%TZ"))
    claiming = queue.claiming(identity, WorkerSettings(straggler_times=0))
    while claims := (await claiming.claim(CLAIM_AT_ONCE, used_bytes=0, capacity_bytes=1 << 30)).claims:
        for claim in claims:
            await claiming.finish(claim, dead=None, counters={"judge_calls": 7.0, "busy_s": 1.0})


def measured(*, short: bool) -> dict[str, Any]:
    rows = by_cases(SHORT_CASES if short else CASES)
    _draw(rows)
    figures: dict[str, Any] = {"by_cases": rows, "redis_cpu_ms_by_workers": asyncio.run(by_workers()), "worker_cpu_ms_by_in_flight": by_in_flight()}  # fmt: skip
    of_many, of_one = (figures["redis_cpu_ms_by_workers"][str(n)] for n in (WORKERS[-1], WORKERS[0]))
    of_thousand, of_ten = (figures["worker_cpu_ms_by_in_flight"][str(n)] for n in (IN_FLIGHT[-1], IN_FLIGHT[1]))
    times = {"redis_cpu_64_over_1_workers": of_many / of_one, "worker_cpu_1000_over_10_in_flight": of_thousand / of_ten}
    return {
        **figures,
        "times": {name: round(by, 2) for name, by in times.items()},
        "largest_over_1000": _over_1000(rows),
    }


def _over_1000(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Of each step: a case of the largest run over a case of the run of 1,000, whose start-up hardly counts. 1: linear."""
    middle = next(row for row in rows if row["cases"] == 1_000)
    steps = [name for name in middle if name.endswith("_ms_per_case")]
    return {step.removesuffix("_ms_per_case"): round(rows[-1][step] / middle[step], 2) for step in steps}


def summary(figures: dict[str, Any]) -> dict[str, Any]:
    """What is held against the ranges: a row for each number of cases; by workers, by cases in flight, and how each step grows."""
    others = {name: rows for name, rows in figures.items() if name != "by_cases"}
    return {"growth": figures["by_cases"], "growth_by": others}


def _draw(rows: list[dict[str, Any]]) -> None:
    steps = [name for name in rows[0] if name.endswith("_ms_per_case")]
    chart = Chart(title="What a case costs as the run grows", x="cases", y="ms a case", log_x=True)
    names = {step: step.removesuffix("_ms_per_case").replace("_", " and ") for step in steps}
    chart.write(OUT / "growth.svg", {name: [(row["cases"], row[step]) for row in rows] for step, name in names.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="up to 10,000 cases")
    args = parser.parse_args()
    figures = measured(short=args.short)
    written("growth", figures)
    sys.exit(check(RANGES, summary(figures), only=KEYS))


if __name__ == "__main__":
    main()
