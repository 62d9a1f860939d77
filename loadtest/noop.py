"""No-op cases per second and process: a metric that asks no judge, results as durable as any.

python -m loadtest.noop [--cases 5000] [--concurrency 64]
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from queue_eval.store.directory import DirectoryStore
from testkit.measured import run
from testkit.workload import write_cases, write_eval


async def durable_creations_per_s(folder: Path, count: int, in_flight: int) -> float:
    """The bound: what the store alone does on this disk, results of the same size, as many in flight."""
    store, numbers = DirectoryStore(folder), iter(range(count))

    async def create() -> None:
        for n in numbers:
            await store.create(f"results/{n}.json", b"x" * 900)

    started = time.monotonic()
    await asyncio.gather(*(create() for _ in range(in_flight)))
    return count / (time.monotonic() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=64)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        durable_per_s = asyncio.run(durable_creations_per_s(folder / "bound", args.cases, args.concurrency))
        write_cases(folder / "cases.jsonl", args.cases)
        path = write_eval(folder, metrics=[{"type": "loadtest.noop_metric:NoOp"}])
        spent = run([sys.executable, "-m", "loadtest.worker_alone", str(path), str(args.concurrency)])
    if spent.code:
        sys.exit(spent.out)
    figures = json.loads(spent.out.splitlines()[-1])
    cases_per_s, cpu_ms = args.cases / figures["elapsed_s"], 1000 * figures["cpu_s"] / args.cases
    print(
        json.dumps(
            {
                **figures,
                "cases_per_s": round(cases_per_s),
                "cpu_ms_per_case": round(cpu_ms, 3),
                "durable_creations_per_s": round(durable_per_s),
            }
        )
    )


if __name__ == "__main__":
    main()
