"""Peak memory of one worker with 500 cases in flight, against a judge that takes its time; beside it, that of a process that has only imported DeepEval.

python -m loadtest.memory [--in-flight 500] [--latency-ms 3000]
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from testkit.measured import judge, run
from testkit.redis_server import product_server
from testkit.workload import write_cases, write_eval


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--in-flight", type=int, default=500)
    parser.add_argument("--latency-ms", type=float, default=3000)
    args = parser.parse_args()
    print(json.dumps(asyncio.run(measured(args.in_flight, args.latency_ms))))


async def measured(in_flight: int, latency_ms: float) -> dict[str, float]:
    """The worker is a process of its own, as in a cluster; the producer is another."""
    server = product_server()
    with tempfile.TemporaryDirectory() as name, judge(latency_ms) as base_url:
        folder = Path(name)
        write_cases(folder / "cases.jsonl", in_flight * 2)
        path = write_eval(folder, judge={"type": "openai", "model": "m", "base_url": base_url})
        async with server as url:
            where = ["--redis", url, "--store", str(folder / "runs")]
            command = [sys.executable, "-m", "queue_eval"]
            await asyncio.to_thread(run, [*command, "enqueue", str(path), "--run-id", "measured", *where])
            spent = await asyncio.to_thread(
                run, [*command, "worker", "measured", "--concurrency", str(in_flight), *where]
            )
        imported = await asyncio.to_thread(run, [sys.executable, "-c", "import queue_eval.judge.resolution"])
    if spent.code:
        raise SystemExit(spent.out)
    return {
        "in_flight": in_flight,
        "rss_mb": round(spent.rss_mb, 1),
        "wall_s": round(spent.wall_s, 1),
        "deepeval_imported_mb": round(imported.rss_mb, 1),
    }


if __name__ == "__main__":
    main()
