"""queue-eval finalize"""

import asyncio
import os

import click

from queue_eval.cli.logs import log_json_lines
from queue_eval.cli.options import (
    SECONDS,
    follow_option,
    json_option,
    redis_option,
    store_option,
    wait_option,
)
from queue_eval.cli.redis_of_run import redis_url_of_run
from queue_eval.cli.report_output import print_report
from queue_eval.cli.status_lines import status_lines
from queue_eval.core.location import DEFAULT_STORE
from queue_eval.core.naming import checked_run_id
from queue_eval.core.report import Report
from queue_eval.runs.finish import finish_when_over
from queue_eval.runs.run import opened_run
from queue_eval.wiring import stores, working


@click.command()
@click.argument("run_id")
@store_option()
@redis_option
@click.option(
    "--timeout",
    "timeout_s",
    type=SECONDS,
    metavar="TIME",
    help="give up waiting for drained after this time, and report what there is  [default: wait]",
)
@click.option(
    "--no-wait",
    is_flag=True,
    help="report what the store holds now. An incomplete run never passes, and Redis is not asked",
)
@wait_option
@follow_option
@json_option
def command(
    run_id: str,
    store: str | None,
    redis_url: str | None,
    timeout_s: float | None,
    no_wait: bool,
    wait_s: float,
    follow_s: float | None,
    as_json: bool,
) -> int:
    """Wait until RUN_ID is drained, write its report, and exit with the verdict: 0 passed, 1 failed, 2 inconclusive."""
    run_id = checked_run_id(run_id)
    if as_json or follow_s is not None:
        log_json_lines(run_id=run_id)
    location = store or DEFAULT_STORE
    url = None
    if no_wait:
        report = asyncio.run(_report_now(run_id, location))
    else:
        url = redis_url_of_run(redis_url, location, run_id)
        report = asyncio.run(_finalize(run_id, location, url, timeout_s=timeout_s, wait_s=wait_s, follow_s=follow_s))
    print_report(report, location, as_json=as_json or follow_s is not None, redis_url=url)
    return report.exit_code


async def _report_now(run_id: str, location: str) -> Report:
    store = stores.open_store(location, run_id)
    manifest = await stores.read_manifest(store, run_id, location)
    return await working.build_finalizer(store, manifest).finalize(manifest)


async def _finalize(
    run_id: str, location: str, url: str, *, timeout_s: float | None, wait_s: float, follow_s: float | None
) -> Report:
    async with opened_run(run_id, location, url, os.environ, wait_s=wait_s) as run:
        show = status_lines(run) if follow_s is not None else None
        return await finish_when_over(
            run, timeout_s=timeout_s, show=show, show_every_s=follow_s or 0.0, unknown_for_s=wait_s
        )
