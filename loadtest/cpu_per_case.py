"""CPU per case and cases per second at 64 in flight against a 200 ms judge, beside `deepeval.evaluate()` in the same run: as it comes, and
with one HTTP client for all of its calls.

    python -m loadtest.cpu_per_case [--ours 800] [--theirs 256]

CPU per case is a slope: the CPU of a run of N cases less that of a run of N/4, over the difference, so start-up does not count.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from loadtest.peers.contestants import Place, environment
from loadtest.peers.judging import PER_CALL, SCORED
from testkit.measured import Spent, judge, run
from testkit.workload import write_cases, write_eval

IN_FLIGHT = 64


def ours(folder: Path, count: int, base_url: str) -> tuple[Spent, float]:
    """The worker process alone, and the seconds from its first claim to the last finish."""
    folder.mkdir()
    write_cases(folder / "cases.jsonl", count)
    path = write_eval(folder, judge={"type": "openai", "model": "m", "base_url": base_url})
    spent = run([sys.executable, "-m", "loadtest.worker_alone", str(path), str(IN_FLIGHT)])
    figures = json.loads(spent.out.splitlines()[-1])
    return Spent(spent.wall_s, figures["cpu_s"], figures["rss_mb"], spent.code, spent.out), figures["elapsed_s"]


def theirs(folder: Path, count: int, base_url: str, client: str) -> Spent:
    folder.mkdir()
    write_cases(folder / "cases.jsonl", count)
    command = [sys.executable, "-m", "loadtest.peers.evaluate", str(IN_FLIGHT), "0", "0"]
    around = environment(base_url, Place(folder=folder, redis_url="")) | {"PEER_CLIENT": client}
    spent = run(command, cwd=folder, environment=around)
    if len((folder / SCORED).read_text().splitlines()) != count:
        sys.exit(f"the peer did not score everything: {spent.out[-500:]}")
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", type=int, default=800)
    parser.add_argument("--theirs", type=int, default=256)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, judge(200) as base_url:
        folder = Path(name)
        (small, _), (large, elapsed_s) = (ours(folder / f"ours-{n}", n, base_url) for n in (args.ours // 4, args.ours))
        more = args.ours - args.ours // 4
        figures = {"ours": {"cpu_ms_per_case": round(1000 * (large.cpu_s - small.cpu_s) / more, 2), "cases_per_s": round(args.ours / elapsed_s, 1), "rss_mb": round(large.rss_mb)}}  # fmt: skip
        for peer, client in (("deepeval.evaluate", "one"), ("deepeval.evaluate as it comes", PER_CALL)):
            few, many = (theirs(folder / f"{client}-{n}", n, base_url, client) for n in (args.theirs // 4, args.theirs))
            more = args.theirs - args.theirs // 4
            figures[peer] = {"cpu_ms_per_case": round(1000 * (many.cpu_s - few.cpu_s) / more, 1), "cases_per_s": round(more / (many.wall_s - few.wall_s), 2), "rss_mb": round(many.rss_mb)}  # fmt: skip
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
