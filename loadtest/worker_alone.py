"""One worker in this process on a Redis of its own, measured from its first claim to its last finish; with --finalize, also its end, once without and once with the report.

`--profile=FILE` is for `loadtest.whose_cpu`.
"""

import asyncio
import cProfile
import json
import os
import resource
import time
from pathlib import Path

from queue_eval.config.load import load
from queue_eval.dataset.bounds import Bounds
from queue_eval.dataset.reader import CaseFile
from queue_eval.dataset.selection import Selection
from queue_eval.finalizer.finalizer import Finalizer
from queue_eval.runs.produce import from_file
from queue_eval.wiring import queues, stores, working
from queue_eval.wiring.queues import RunQueue
from testkit.measured import own_cpu_s
from testkit.redis_server import product_server


async def main(eval_yaml: str, concurrency: int, *, finalize: bool, profile: cProfile.Profile | None) -> None:
    loaded = load(Path(eval_yaml), environment=os.environ)
    server = product_server()
    import queue_eval.judge.resolution  # noqa: F401 - DeepEval's import is not what is measured

    async with server as url, queues.redis_client(url, {}) as client:
        store = stores.open_store(loaded.store, "measured")
        queue = RunQueue.of(client, "measured")
        cases = CaseFile(loaded.dataset, Bounds())
        started = time.monotonic()
        produced = await from_file(
            loaded, cases, Selection(), run_id="measured", location=loaded.store, source="c", environment=os.environ
        )(queue, store)
        enqueue_s = time.monotonic() - started
        worker, scorer, _ = working.build_worker(produced.manifest, queue, store, os.environ, concurrency=concurrency)
        cpu_s, started = own_cpu_s(), time.monotonic()
        if profile:
            profile.enable()
        code = await worker.run()
        if profile:
            profile.disable()
        elapsed_s = time.monotonic() - started
        cpu_s = own_cpu_s() - cpu_s
        await scorer.close()
        stats = await queue.steering.stats()
        bare_s = finalize_s = 0.0
        if finalize:
            started = time.monotonic()
            await Finalizer(store, writers=lambda _folder: []).finalize(produced.manifest)
            bare_s = time.monotonic() - started
            started = time.monotonic()
            await working.build_finalizer(store, produced.manifest).finalize(produced.manifest)
            finalize_s = time.monotonic() - started
    print(
        json.dumps(
            {
                "exit_code": code,
                "scored": stats.scored,
                "elapsed_s": round(elapsed_s, 3),
                "cpu_s": round(cpu_s, 3),
                "enqueue_s": round(enqueue_s, 3),
                "finalize_s": round(finalize_s, 3),
                "report_s": round(finalize_s - bare_s, 3),
                "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            }
        )
    )


if __name__ == "__main__":
    import sys

    to = next((word.partition("=")[2] for word in sys.argv if word.startswith("--profile=")), None)
    profile = cProfile.Profile(time.process_time) if to else None
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), finalize="--finalize" in sys.argv, profile=profile))
    if profile and to:
        profile.dump_stats(to)
