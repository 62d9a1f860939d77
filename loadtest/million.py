"""A million cases that cost no judge, through enqueue, four workers and finalize, each in processes of its own.

    python -m loadtest.million [--cases 1000000] [--workers 4]

A quarter of an hour on two cores, 6 GB of disk and 3 GB of memory; the files take some minutes more to be deleted. Writes loadtest/out/million.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from redis import Redis

from loadtest.ranges import written
from testkit.measured import Family, Spent, run, surroundings
from testkit.redis_server import Server, serving
from testkit.workload import write_cases, write_eval

RUN = "million"


def step(words: list[str], folder: Path) -> Spent:
    spent = run([sys.executable, "-m", "queue_eval", *words], cwd=folder)
    if spent.code:
        raise SystemExit(f"{words[0]}: {spent.out[-2000:]}")
    print(json.dumps({words[0]: {"s": round(spent.wall_s, 1), "rss_mb": round(spent.rss_mb)}}), flush=True)
    return spent


def worked(where: list[str], workers: int, folder: Path) -> dict[str, float]:
    """All of them at once, until the run is drained."""
    command = [sys.executable, "-m", "queue_eval", "worker", RUN, "--concurrency", "64", *where]
    started = time.monotonic()
    processes = [
        subprocess.Popen(command, cwd=folder, env=surroundings(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(workers)
    ]
    with Family(*(process.pid for process in processes)) as family:
        codes = [process.wait() for process in processes]
    if any(codes):
        raise SystemExit(f"workers ended with {codes}")
    return {"s": round(time.monotonic() - started, 1), "rss_mb_of_each": round(family.rss_mb / workers)}


def redis_bytes(server: Server) -> int:
    with Redis.from_url(server.url) as redis:
        return int(redis.info("memory")["used_memory"])


def measured(cases: int, workers: int, folder: Path) -> dict[str, Any]:
    write_cases(folder / "cases.jsonl", cases, context_characters=200)
    write_eval(folder, metrics=[{"type": "loadtest.noop_metric:NoOp"}])
    with serving() as server:
        where = ["--redis", server.url, "--store", "runs"]
        enqueued = step(["enqueue", "eval.yaml", "--run-id", RUN, *where], folder)
        waiting = redis_bytes(server)
        work = worked(where, workers, folder)
        print(json.dumps({"workers": work}), flush=True)
        finished = redis_bytes(server)
        finalized = step(["finalize", RUN, *where], folder)
    report = json.loads((folder / "runs" / RUN / "report.json").read_text())
    sizes = {path.name: path.stat().st_size for path in (folder / "runs" / RUN).glob("*") if path.is_file()}
    if report["accounting"]["scored"] != cases:
        raise SystemExit(f"scored {report['accounting']['scored']} of {cases}")
    return {
        "cases": cases,
        "workers": workers,
        "enqueue": {"s": round(enqueued.wall_s, 1), "rss_mb": round(enqueued.rss_mb)},
        "redis_bytes_per_case": {"waiting": round(waiting / cases), "finished": round(finished / cases)},
        "work": work,
        "cases_per_s": round(cases / work["s"]),
        "finalize": {"s": round(finalized.wall_s, 1), "rss_mb": round(finalized.rss_mb)},
        "report_mb": {name: round(size / 1e6, 2) for name, size in sorted(sizes.items())},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=4)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        figures = measured(args.cases, args.workers, Path(name))
    print(json.dumps(figures))
    written("million", figures)


if __name__ == "__main__":
    main()
