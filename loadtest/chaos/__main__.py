"""A run in a storm, then an audit that trusts no process. Prints one JSON line and whether the figures are in their ranges.

python -m loadtest.chaos                  # 2,000 cases, 8 workers, at least 200 kills: about ten minutes
python -m loadtest.chaos --cases 150 --workers 3 --kills 10    # as CI does
"""

import argparse
import json
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from redis import Redis

from loadtest.chaos.audit import audit
from loadtest.chaos.scene import CONCURRENCY, RUN, Scene, scene
from loadtest.chaos.storm import Storm, WorkerPool, is_drained
from loadtest.ranges import check
from queue_eval.core.errors import EXIT_DRAINED, EXIT_INTERRUPTED

SLOWED_BY_S = 5.0
START_WITHIN_S = "60"  # as in a cluster: a worker that is started while Redis is away waits for it
# drained, stopped by a signal, killed, and stopped before it could listen
EXPECTED_ENDS = (EXIT_DRAINED, EXIT_INTERRUPTED, -signal.SIGKILL, -signal.SIGTERM)
UNDER_WAY_S = 0.5  # what they had sent arrives


def weather(here: Scene, args: argparse.Namespace) -> tuple[Storm, dict[str, Any]]:
    """The storm until enough was killed, then fair weather until the run is drained."""
    pool = WorkerPool(
        start=lambda: here.verb("worker", RUN, "--wait-timeout", START_WITHIN_S),
        drained=lambda: is_drained(here.server, RUN),
        size=args.workers,
    )

    def flush() -> None:
        """While all stand still, so that the audit knows what was forgotten."""
        with pool.standing_still():
            time.sleep(UNDER_WAY_S)
            before, here.deaths_forgotten = here.deliveries(), here.deaths()
            _flush()
            here.forgotten = Counter(before)
            here.forgotten.subtract(here.deliveries())

    def _flush() -> None:
        with Redis.from_url(here.server.url) as redis:
            redis.flushall()
        here.must("enqueue", "eval.yaml", "--run-id", RUN)

    storm = Storm(pool, here.server, here.proxy, here.gate, flush, random.Random(args.seed))
    try:
        return storm, _weathered(here, args, storm)
    finally:
        pool.dismiss()


def _weathered(here: Scene, args: argparse.Namespace, storm: Storm) -> dict[str, Any]:
    pool = storm.pool
    began = time.monotonic()
    flushed = restarted = False
    fair, storm_latency = here.provider.latency, lambda: SLOWED_BY_S + fair()
    while storm.is_short_of(args.kills) and pool.supervise():
        # what is left must outlast what is still to come
        here.provider.latency = storm_latency if here.left(args.cases) < args.cases / 2 else fair
        time.sleep(storm.chance.uniform(0.2, 2 * args.pause_s - 0.2))
        storm.gust()
        if not restarted and storm.done["kill"] > args.kills / 4:
            restarted = True
            storm.restart_redis()
            storm.done["restart_redis"] += 1
        if not flushed and storm.done["kill"] > args.kills / 2:
            flushed = True
            storm.calm()
            storm.flush()
        if time.monotonic() - began > args.minutes * 60:
            raise SystemExit(f"the storm took longer than {args.minutes} minutes: {dict(storm.done)}")
    here.provider.latency = fair
    storm.calm()
    storm_s = time.monotonic() - began
    while pool.supervise():
        time.sleep(0.1)
        if time.monotonic() - began > args.minutes * 60:
            raise SystemExit(f"not drained within {args.minutes} minutes")
    drained_after_s = time.monotonic() - began - storm_s
    return {"storm_s": round(storm_s, 1), "drained_after_s": round(drained_after_s, 1), "flushed": int(flushed)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--kills", type=int, default=200, help="SIGKILLs to workers, at least")
    parser.add_argument("--pause-s", type=float, default=1.2, help="between two things that go wrong, on average")
    parser.add_argument("--minutes", type=float, default=25, help="give up after so many")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with scene(args.seed, args.cases) as here:
        here.must("enqueue", "eval.yaml", "--run-id", RUN)
        storm, times = weather(here, args)
        here.must("finalize", RUN)
        kinds = {name: storm.done[name] for name in sorted(storm.done)}
        pool = storm.pool
        figures = {**audit(here, args.cases), **times, **kinds, "early_exits": pool.early_exits(), "exit_codes": {str(c): n for c, n in sorted(pool.codes.items())}}  # fmt: skip
        figures["ended_by_trouble"] = sum(n for code, n in pool.codes.items() if code not in EXPECTED_ENDS)
        # died with their worker, left it while the store was away, were under way in the flush, or came when it was leaving already
        explained = here.deaths_forgotten + here.deaths() + figures["unnoted"] + (args.workers * figures["flushed"] + storm.done["terminate"]) * CONCURRENCY  # fmt: skip
        figures["unknown_executions_beyond_deaths"] = max(0, figures["unknown_executions"] - explained)
    figures["kills_missing"] = max(0, args.kills - figures.get("kill", 0))
    print(json.dumps(figures))
    return check(Path(__file__).with_name("ranges.toml"), {"audit": figures})


if __name__ == "__main__":
    sys.exit(main())
