"""An RQ worker that has imported DeepEval before its first job: python -m loadtest.peers.rq_worker simple|fork REDIS_URL."""

import sys
from pathlib import Path

from redis import Redis
from rq import Queue, SimpleWorker, Worker

from loadtest.peers.judging import judge_in_a_job, metrics, rows

QUEUE = "peer"


def enqueue(redis_url: str, folder: Path) -> None:
    with Redis.from_url(redis_url) as redis:
        queue = Queue(QUEUE, connection=redis)
        queue.enqueue_many([Queue.prepare_data(judge_in_a_job, (row,), timeout=600) for row in rows(folder)])


def main(kind: str, redis_url: str) -> None:
    metrics()
    with Redis.from_url(redis_url) as redis:
        (SimpleWorker if kind == "simple" else Worker)([QUEUE], connection=redis).work(
            burst=True, logging_level="ERROR"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
