"""An RQ worker that has imported DeepEval before its first job: python -m loadtest.peers.rq_worker simple|fork REDIS_URL ends|waits.

A dead worker's job comes back as early as its settings allow: after the job's timeout or the monitoring interval, and the 60 s
that RQ adds to either.
"""

import sys
from pathlib import Path

from redis import Redis
from rq import Queue, Retry, SimpleWorker, Worker

from loadtest.peers.judging import judge_in_a_job, metrics, model, rows

QUEUE = "peer"
TIMEOUT_S, LOOK_S, RETRIES = 15, 5, 3


def enqueue(redis_url: str, folder: Path) -> None:
    with Redis.from_url(redis_url) as redis:
        queue = Queue(QUEUE, connection=redis)
        retry = Retry(max=RETRIES)
        jobs = [Queue.prepare_data(judge_in_a_job, (row,), timeout=TIMEOUT_S, retry=retry) for row in rows(folder)]
        queue.enqueue_many(jobs)


def warm() -> None:
    """Imports all that judging a case does: otherwise its client imports 700 modules at its first call, and so does every child that is forked."""
    import anyio._backends._asyncio  # noqa: F401
    import openai

    metrics()
    model().load_model()
    client = openai.AsyncOpenAI(api_key="none")
    _ = client.chat.completions, client.beta.chat.completions


def main(kind: str, redis_url: str, at_end: str) -> None:
    warm()
    with Redis.from_url(redis_url) as redis:
        of_kind = SimpleWorker if kind == "simple" else Worker
        worker = of_kind(
            [QUEUE], connection=redis, job_monitoring_interval=LOOK_S, maintenance_interval=LOOK_S, worker_ttl=30
        )
        worker.work(burst=at_end == "ends", logging_level="ERROR")


if __name__ == "__main__":
    main(*sys.argv[1:])
