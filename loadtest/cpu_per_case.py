"""CPU per case and cases per second at 64 in flight against a 200 ms judge, beside stock `deepeval.evaluate()` in the same run.

    python -m loadtest.cpu_per_case [--ours 800] [--stock 60]

CPU per case is a slope: the CPU of a run of N cases less that of a run of N/4, over the difference, so start-up does not count.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from loadtest.measured import Spent, judge, run
from loadtest.peers.contestants import Place, environment
from loadtest.peers.judging import SCORED
from loadtest.workload import write_cases, write_eval

IN_FLIGHT = 64


def ours(folder: Path, count: int, base_url: str) -> tuple[Spent, float]:
    """The worker process alone, and the seconds from its first claim to the last finish."""
    folder.mkdir()
    write_cases(folder / "cases.jsonl", count)
    path = write_eval(folder, judge={"type": "openai", "model": "m", "base_url": base_url})
    spent = run([sys.executable, "-m", "loadtest.worker_alone", str(path), str(IN_FLIGHT)])
    figures = json.loads(spent.out.splitlines()[-1])
    return Spent(spent.wall_s, figures["cpu_s"], figures["rss_mb"], spent.code, spent.out), figures["elapsed_s"]


def stock(folder: Path, count: int, base_url: str) -> Spent:
    folder.mkdir()
    write_cases(folder / "cases.jsonl", count)
    command = [sys.executable, "-m", "loadtest.peers.evaluate", str(IN_FLIGHT), "0", "0"]
    spent = run(command, cwd=folder, environment=environment(base_url, Place(folder=folder, redis_url="")))
    if len((folder / SCORED).read_text().splitlines()) != count:
        sys.exit(f"the peer did not score everything: {spent.out[-500:]}")
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", type=int, default=800)
    parser.add_argument("--stock", type=int, default=60)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, judge(200) as base_url:
        folder = Path(name)
        (small, _), (large, elapsed_s) = (ours(folder / f"ours-{n}", n, base_url) for n in (args.ours // 4, args.ours))
        few, many = (stock(folder / f"stock-{n}", n, base_url) for n in (args.stock // 4, args.stock))
    per_case_ms = 1000 * (large.cpu_s - small.cpu_s) / (args.ours - args.ours // 4)
    stock_ms = 1000 * (many.cpu_s - few.cpu_s) / (args.stock - args.stock // 4)
    stock_per_s = (args.stock - args.stock // 4) / (many.wall_s - few.wall_s)
    print(
        json.dumps(
            {
                "ours": {
                    "cpu_ms_per_case": round(per_case_ms, 2),
                    "cases_per_s": round(args.ours / elapsed_s, 1),
                    "rss_mb": round(large.rss_mb),
                },
                "deepeval.evaluate": {
                    "cpu_ms_per_case": round(stock_ms, 1),
                    "cases_per_s": round(stock_per_s, 2),
                    "rss_mb": round(many.rss_mb),
                },
            }
        )
    )


if __name__ == "__main__":
    main()
