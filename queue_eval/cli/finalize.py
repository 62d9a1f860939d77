"""queue-eval finalize"""

import asyncio
import os
import time

import click

from queue_eval import wiring
from queue_eval.cli.options import DEFAULT_STORE, json_option, redis_option, redis_url_of_run, store_option
from queue_eval.cli.say import say_report
from queue_eval.config.settings import RedisSettings
from queue_eval.core.errors import NoInputError, UnavailableError
from queue_eval.core.naming import checked_run_id
from queue_eval.core.report import Report
from queue_eval.queue.connection import check
from queue_eval.wiring import ManifestSettings, RunQueue

LOOK_EVERY_S = 0.5


@click.command()
@click.argument("run_id")
@store_option()
@redis_option
@click.option(
    "--timeout",
    "timeout_s",
    type=float,
    metavar="S",
    help="give up waiting for drained after S seconds, and report what there is  [default: wait]",
)
@click.option(
    "--no-wait",
    is_flag=True,
    help="report what the store holds now; an incomplete run never passes, and Redis is not asked",
)
@json_option
def command(
    run_id: str, store: str | None, redis_url: str | None, timeout_s: float | None, no_wait: bool, as_json: bool
) -> int:
    """Wait until RUN_ID is drained, write its report, and exit with the verdict: 0 passed, 1 failed, 2 inconclusive."""
    run_id = checked_run_id(run_id)
    location = store or DEFAULT_STORE
    url = None if no_wait else redis_url_of_run(redis_url, location, run_id)
    report = asyncio.run(_finalize(run_id, location, url, timeout_s))
    say_report(report, location, as_json=as_json)
    return report.exit_code


async def _finalize(run_id: str, location: str, url: str | None, timeout_s: float | None) -> Report:
    objects = wiring.open_store(location, run_id)
    manifest = await wiring.read_manifest(objects, run_id, location)
    finalizer = wiring.build_finalizer(objects, manifest)
    rules = ManifestSettings.of(manifest).gate
    if url is None:
        return await finalizer.finalize(manifest, rules)
    async with wiring.redis_client(url, RedisSettings(), os.environ) as client:
        await check(client, url)
        queue = RunQueue.of(client, run_id)
        await _drained(queue, timeout_s)
        await wiring.keep_timeline(client, manifest, objects)
        report = await finalizer.finalize(manifest, rules)
        await queue.steering.finalized()
        return report


async def _drained(queue: RunQueue, timeout_s: float | None) -> None:
    """Returns early when the time is over: the gate sees to it that an incomplete run does not pass."""
    until = None if timeout_s is None else time.monotonic() + timeout_s
    while until is None or time.monotonic() < until:
        try:
            if (await queue.steering.stats()).state.over:
                return
        except UnavailableError:
            pass  # Redis is away for a while: the run is not over because of that
        except NoInputError:
            return  # wiped: the store tells what there is
        await asyncio.sleep(LOOK_EVERY_S)
