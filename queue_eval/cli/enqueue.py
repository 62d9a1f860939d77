"""queue-eval enqueue"""

import asyncio
import os

import click

from queue_eval.cli.inputs import case_file, dataset_options, loaded, run_id_or_new, selection
from queue_eval.cli.logs import log_json_lines
from queue_eval.cli.options import json_option, priority_option, redis_option, store_option
from queue_eval.cli.output import print_json, print_lines, print_notice, shell_quoted
from queue_eval.cli.produced import produced_lines
from queue_eval.cli.redis_of_run import redis_url_of_run
from queue_eval.core.location import url_without_secret
from queue_eval.producer.producer import Produced
from queue_eval.runs.produce import from_file
from queue_eval.runs.redis import shared_redis
from queue_eval.wiring import queues, stores
from queue_eval.wiring.queues import RunQueue


@click.command()
@click.argument("eval_yaml")
@click.option("--run-id", metavar="R", help="a name for the run  [default: by date and time]")
@priority_option
@dataset_options
@store_option()
@redis_option
@json_option
def command(
    eval_yaml: str,
    run_id: str | None,
    priority: str | None,
    dataset: str | None,
    limit: int | None,
    sample: int | None,
    seed: int,
    tags: tuple[str, ...],
    store: str | None,
    redis_url: str | None,
    as_json: bool,
) -> int:
    """Freeze the run of EVAL_YAML in the store and put its cases into a shared Redis. Safe to repeat."""
    settings = loaded(eval_yaml, priority=priority)
    run_id = run_id_or_new(run_id)
    if as_json:
        log_json_lines(run_id=run_id)
    location = store or settings.store
    redis = settings.settings.redis
    url = redis_url_of_run(redis_url, location, run_id, redis.url)
    cases = case_file(settings, dataset)
    chosen = selection(limit, sample, seed, tags)
    produce = from_file(
        settings,
        cases,
        chosen,
        run_id=run_id,
        location=location,
        source=dataset or settings.settings.dataset,
        environment=os.environ,
    )

    async def enqueue() -> Produced:
        objects = stores.open_store(location, run_id)
        await stores.probe_store(objects, location)
        async with shared_redis(url, os.environ, password_env=redis.password_env, notice=print_notice) as client:
            return await produce(RunQueue.of(client, run_id, queues.retention_of(redis)), objects)

    produced = asyncio.run(enqueue())
    if as_json:
        print_json(
            {
                "event": "enqueued",
                "run_id": run_id,
                "cases": produced.manifest.dataset.cases,
                "enqueued": produced.enqueued,
                "stored": produced.stored,
                "state": produced.state,
            }
        )
        return 0
    for line in produced_lines(produced, cases):
        print_lines(line)
    print_lines(
        f"next: queue-eval worker {run_id} --redis {shell_quoted(url_without_secret(url))} --store"
        f" {shell_quoted(location)}"
    )
    return 0
