"""queue-eval worker"""

import asyncio
import logging
import os
from dataclasses import replace
from pathlib import Path

import click

from queue_eval.cli.logs import log_json_lines
from queue_eval.cli.options import concurrency_option, redis_option, store_option, wait_option
from queue_eval.cli.redis_of_run import redis_url_of_run
from queue_eval.cli.template import worker_template
from queue_eval.core.errors import QueueEvalError, UsageError
from queue_eval.core.location import DEFAULT_STORE
from queue_eval.core.naming import checked_run_id
from queue_eval.core.shard import Shard
from queue_eval.local.signals import handle_signals
from queue_eval.local.starter import WorkerStarter
from queue_eval.local.together import work_together
from queue_eval.local.worker_pool import WorkerPool
from queue_eval.runs.resume import resume
from queue_eval.runs.run import Run, opened_run
from queue_eval.wiring import queues, working
from queue_eval.wiring.allowed_judges import check_allowed
from queue_eval.wiring.queues import RunQueue

log = logging.getLogger("queue_eval.worker")


@click.command()
@click.argument("run_id")
@store_option()
@redis_option
@concurrency_option
@wait_option
@click.option(
    "--processes",
    type=click.IntRange(1, 256),
    default=1,
    metavar="N",
    help="worker processes, forked from one that has imported everything. Each holds --concurrency cases  [default: 1]",
)
@click.option(
    "--alive-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="touched while this worker gets on, for a supervisor that restarts it when the file grows old",
)
@click.option(
    "--shard-index",
    type=click.IntRange(min=0),
    metavar="I",
    help=(
        "work on a fixed slice instead of the shared queue: every Nth case from the Ith on. Finalize with --no-wait."
        " `abort` does not reach it"
    ),
)
@click.option("--total-shards", type=click.IntRange(min=1), metavar="N", help="of --shard-index")
def command(
    run_id: str,
    store: str | None,
    redis_url: str | None,
    concurrency: int | None,
    wait_s: float,
    processes: int,
    alive_file: Path | None,
    shard_index: int | None,
    total_shards: int | None,
) -> int:
    """Score cases of RUN_ID until the run is drained.

    Exit codes: 0 drained, 75 stopped by SIGTERM with everything released, 65 run aborted, 78 configuration, anything
    else is a crash.
    """
    run_id = checked_run_id(run_id)
    log_json_lines(run_id=run_id)
    location = store or DEFAULT_STORE
    shard = _shard(shard_index, total_shards)
    url = redis_url_of_run(redis_url, location, run_id)
    if processes > 1:
        if alive_file or shard:
            raise UsageError("--alive-file and --shard-index are about one process; leave --processes out")
        options = ["--store", location, "--wait-timeout", str(wait_s)]
        options += ["--concurrency", str(concurrency)] if concurrency else []
        with worker_template() as template:
            starter = WorkerStarter(
                run_id, options, redis_url=url, environment=dict(os.environ), logs=None, template=template
            )
            return asyncio.run(_work_together(run_id, url, WorkerPool(starter, processes)))
    return asyncio.run(_work(run_id, location, url, concurrency, wait_s=wait_s, alive_file=alive_file, shard=shard))


async def _work_together(run_id: str, url: str, pool: WorkerPool) -> int:
    async with queues.redis_client(url, os.environ) as client:
        steering = RunQueue.of(client, run_id).steering

        async def executions() -> int | None:
            try:
                return (await steering.stats()).executions
            except QueueEvalError:
                return None  # it is away, or the run is not enqueued: the workers know what to do

        return await work_together(pool, executions)


async def _work(
    run_id: str,
    location: str,
    url: str,
    concurrency: int | None,
    *,
    wait_s: float,
    alive_file: Path | None,
    shard: Shard | None,
) -> int:
    async with opened_run(run_id, location, url, os.environ, wait_s=wait_s, store_gives_up_after_s=None) as whole:
        settings = whole.settings
        check_allowed(settings.judge, settings.metrics, os.environ, run_id=run_id, store=location)
        run = await _shard_of(whole, shard) if shard else whole
        worker, scorer, identity = working.build_worker(
            run.manifest,
            run.queue,
            run.store,
            os.environ,
            concurrency=concurrency,
            wait_s=wait_s,
            alive_file=alive_file,
        )
        log_json_lines(run_id=run_id, worker=identity.name, commit=run.manifest.commit_sha)
        handle_signals(worker.stop)
        log.info("worker started", extra={"event": "start"})
        try:
            code = await worker.run()
        finally:
            await scorer.close()
        log.info("worker ended", extra={"event": "exit", "reason": f"exit code {code}"})
        return code


def _shard(index: int | None, total: int | None) -> Shard | None:
    if index is None and total is None:
        return None
    if index is None or total is None:
        raise UsageError("--shard-index and --total-shards go together")
    return Shard(index, total)


async def _shard_of(run: Run, shard: Shard) -> Run:
    """Return the run with a queue of its own, that holds the shard's cases alone."""
    part = replace(run, queue=RunQueue.of(run.queue.redis, shard.queue_of(run.run_id)))
    await resume(part, shard=shard)
    return part
