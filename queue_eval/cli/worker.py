"""queue-eval worker"""

import asyncio
import logging
import os
import signal

import click

from queue_eval import wiring
from queue_eval.cli.logs import log_json_lines
from queue_eval.cli.options import DEFAULT_STORE, concurrency_option, redis_option, redis_url_of_run, store_option
from queue_eval.config.settings import RedisSettings
from queue_eval.core.naming import checked_run_id
from queue_eval.queue.connection import check
from queue_eval.wiring import RunQueue

log = logging.getLogger("queue_eval.worker")


@click.command()
@click.argument("run_id")
@store_option()
@redis_option
@concurrency_option
def command(run_id: str, store: str | None, redis_url: str | None, concurrency: int | None) -> int:
    """Score cases of RUN_ID until the run is drained.

    Exit codes: 0 drained; 75 stopped by SIGTERM, everything released; 65 run aborted; 78 configuration; anything else is a crash.
    """
    run_id = checked_run_id(run_id)
    location = store or DEFAULT_STORE
    url = redis_url_of_run(redis_url, location, run_id)
    return asyncio.run(_work(run_id, location, url, concurrency))


async def _work(run_id: str, location: str, url: str, concurrency: int | None) -> int:
    objects = wiring.open_store(location, run_id, give_up_after_s=None)
    async with wiring.redis_client(url, RedisSettings(), os.environ) as client:
        await check(client, url)
        manifest = await wiring.read_manifest(objects, run_id, location)
        worker, scorer, identity = wiring.build_worker(
            manifest, RunQueue.of(client, run_id), objects, os.environ, concurrency=concurrency
        )
        log_json_lines(run_id=run_id, worker=identity.name, commit=manifest.commit_sha)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
        log.info("working", extra={"event": "start"})
        try:
            code = await worker.run()
        finally:
            await scorer.close()
        log.info("leaving", extra={"event": "exit", "reason": f"exit code {code}"})
        return code
