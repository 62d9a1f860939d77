"""queue-eval retry"""

import asyncio
import os

import click

from queue_eval.cli.options import concurrency_option, json_option, redis_option, store_option
from queue_eval.cli.produce import from_store
from queue_eval.cli.run import run_and_show
from queue_eval.cli.say import say, say_json, say_notice, shell_quoted
from queue_eval.cli.say_report import say_report
from queue_eval.cli.template import worker_template
from queue_eval.config.settings import RedisSettings
from queue_eval.core.errors import RunAbortedError
from queue_eval.core.location import DEFAULT_STORE, local_folder, url_without_secret
from queue_eval.core.manifest import Manifest
from queue_eval.core.naming import checked_run_id
from queue_eval.core.objects import ABORTED
from queue_eval.local.contact import Contact
from queue_eval.local.find_redis import named_url
from queue_eval.local.run import LocalPlan
from queue_eval.ports import Store
from queue_eval.producer.history import open_again
from queue_eval.producer.producer import Produced
from queue_eval.queue.connection import check
from queue_eval.queue.server import check_server
from queue_eval.wiring import producing, queues, stores
from queue_eval.wiring.manifests import ManifestSettings
from queue_eval.wiring.queues import RunQueue


@click.command()
@click.argument("run_id")
@store_option()
@redis_option
@concurrency_option
@json_option
def command(run_id: str, store: str | None, redis_url: str | None, concurrency: int | None, as_json: bool) -> int:
    """Ask again for the metrics of RUN_ID that have no score, and give its dead cases fresh attempts.

    On a shared Redis they become ready for its workers; without one, this machine scores them and writes the report again.
    """
    run_id = checked_run_id(run_id)
    location = store or DEFAULT_STORE
    url = named_url(redis_url, None, os.environ) or Contact(local_folder(location), run_id).url()
    if url:
        ready = asyncio.run(_make_ready(run_id, location, url))
        if as_json:
            say_json({"run_id": run_id, "revived": ready})
        else:
            say(f"{ready} {'case is' if ready == 1 else 'cases are'} ready again")
        if ready and not as_json:
            where = f"{run_id} --redis {shell_quoted(url_without_secret(url))} --store {shell_quoted(location)}"
            say(f"next: queue-eval worker {where}, then queue-eval finalize {where}")
        return 0

    async def produce(queue: RunQueue, objects: Store) -> Produced:
        await _manifest(objects, run_id, location)
        await open_again(objects)
        return await from_store(run_id, location)(queue, objects)

    plan = LocalPlan(
        run_id=run_id,
        store=location,
        redis_url=None,
        redis=RedisSettings(),
        workers=None,
        concurrency=concurrency,
        environment=dict(os.environ),
    )
    with worker_template() as template:
        report = run_and_show(plan, produce, None, template, as_json=as_json)
    say_report(report, location, as_json=as_json)
    return report.exit_code


async def _manifest(store: Store, run_id: str, location: str) -> Manifest:
    """RunAbortedError when the run is over for good."""
    manifest = await stores.read_manifest(store, run_id, location)
    if await store.get(ABORTED):
        raise RunAbortedError(run_id)
    return manifest


async def _make_ready(run_id: str, location: str, url: str) -> int:
    async with queues.redis_client(url, os.environ) as client:
        await check(client, url)
        await check_server(client, url, say_notice)
        queue = RunQueue.of(client, run_id)
        store = stores.open_store(location, run_id)
        manifest = await _manifest(store, run_id, location)
        await queue.steering.stats()  # a Redis that does not know the run is not the one that is meant
        await open_again(store)
        specs = ManifestSettings.of(manifest).metrics
        producer = producing.build_producer(store, queue, specs, stores.earlier_busy_s(location, run_id))
        produced = await producer.resume(manifest, sum(spec.judge_calls for spec in specs))
        return produced.enqueued + await queue.enqueueing.retry_dead()
