"""Whose code the CPU of a case goes to: a worker with 64 cases in flight, 200 ms judge over HTTP, under a profiler that counts CPU time.

    python -m loadtest.whose_cpu [--cases 600]

A profiler makes small functions dearer. So its shares are applied to the CPU of the same run without it.
"""

import argparse
import json
import pstats
import sys
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path

from loadtest.cpu_per_case import IN_FLIGHT
from testkit.measured import ROOT, judge, run
from testkit.workload import write_cases, write_eval

PACKAGES, PYTHON = (Path(sysconfig.get_path(name)) for name in ("purelib", "stdlib"))
LEAST_SHARE = 0.01

Function = tuple[str, int, str]  # file, line, name


def owner(function: Function) -> str:
    """A part of ours, a package, or a module of Python's library."""
    path = Path(function[0])
    for folder, prefix in ((ROOT / "queue_eval", "queue_eval/"), (PACKAGES, ""), (PYTHON, "Python's ")):
        if path.is_relative_to(folder):
            return prefix + path.relative_to(folder).parts[0].removesuffix(".py")
    return "Python's others"


def by_owner(file: Path) -> Counter[str]:
    """Seconds. What is built in belongs to its caller."""
    spent = Counter[str]()
    for function, (_, _, own_s, _, callers) in pstats.Stats(str(file)).stats.items():  # type: ignore[attr-defined]
        if function[0] != "~":
            spent[owner(function)] += own_s
            continue
        for caller, (_, _, from_it_s, _) in callers.items():
            spent[owner(caller) if caller[0] != "~" else "Python's asyncio"] += from_it_s
    return spent


def worked(folder: Path, cases: int, base_url: str, *more: str) -> float:
    """CPU of the worker, ms a case."""
    folder.mkdir()
    write_cases(folder / "cases.jsonl", cases)
    path = write_eval(folder, judge={"type": "openai", "model": "m", "base_url": base_url})
    spent = run([sys.executable, "-m", "loadtest.worker_alone", str(path), str(IN_FLIGHT), *more])
    if spent.code:
        raise SystemExit(spent.out)
    return float(1000 * json.loads(spent.out.splitlines()[-1])["cpu_s"] / cases)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=600)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, judge(200) as base_url:
        folder = Path(name)
        plain_ms = worked(folder / "plain", args.cases, base_url)
        worked(folder / "profiled", args.cases, base_url, f"--profile={folder / 'profile'}")
        spent = by_owner(folder / "profile")
    shares = {who: seconds / spent.total() for who, seconds in spent.most_common()}
    shown = {who: round(share * plain_ms, 2) for who, share in shares.items() if share >= LEAST_SHARE}
    print(json.dumps({"cpu_ms_per_case": round(plain_ms, 2), "of_these": shown}))


if __name__ == "__main__":
    main()
