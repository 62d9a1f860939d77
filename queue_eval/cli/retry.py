"""queue-eval retry"""

import asyncio
import os

import click

from queue_eval.cli.options import concurrency_option, json_option, redis_option, store_option
from queue_eval.cli.output import print_json, print_lines, print_notice, shell_quoted
from queue_eval.cli.report_output import print_report
from queue_eval.cli.run import run_and_show
from queue_eval.cli.template import worker_template
from queue_eval.config.redis_settings import RedisSettings
from queue_eval.core.location import DEFAULT_STORE, local_folder, url_without_secret
from queue_eval.core.naming import checked_run_id
from queue_eval.local.find_redis import named_url
from queue_eval.local.plan import LocalPlan
from queue_eval.local.redis_address_file import RedisAddressFile
from queue_eval.runs.redis import shared_redis
from queue_eval.runs.retry import retried, retry
from queue_eval.wiring.queues import RunQueue


@click.command()
@click.argument("run_id")
@store_option()
@redis_option
@concurrency_option
@json_option
def command(run_id: str, store: str | None, redis_url: str | None, concurrency: int | None, as_json: bool) -> int:
    """Ask again for the metrics of RUN_ID that have no score, and give its dead cases fresh attempts.

    On a shared Redis they become ready for its workers. Without one, this machine scores them and writes the report
    again.
    """
    run_id = checked_run_id(run_id)
    location = store or DEFAULT_STORE
    url = named_url(redis_url, None, os.environ) or RedisAddressFile(local_folder(location), run_id).url()
    if url:
        ready = asyncio.run(_make_ready(run_id, location, url))
        if as_json:
            print_json({"run_id": run_id, "revived": ready})
        else:
            print_lines(f"{ready} {'case is' if ready == 1 else 'cases are'} ready again")
        if ready and not as_json:
            where = f"{run_id} --redis {shell_quoted(url_without_secret(url))} --store {shell_quoted(location)}"
            print_lines(f"next: queue-eval worker {where}, then queue-eval finalize {where}")
        return 0

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
        report = run_and_show(plan, retried(run_id, location, os.environ), None, template, as_json=as_json)
    print_report(report, location, as_json=as_json)
    return report.exit_code


async def _make_ready(run_id: str, location: str, url: str) -> int:
    async with shared_redis(url, os.environ, notice=print_notice) as client:
        return await retry(RunQueue.of(client, run_id), run_id, location)
