"""queue-eval tune"""

import asyncio
import os

import click

from queue_eval.cli.options import LIMIT, json_option, priority_option, redis_option, store_option
from queue_eval.cli.output import print_json, print_lines, shell_quoted
from queue_eval.cli.redis_of_run import redis_url_of_run
from queue_eval.core.errors import UsageError
from queue_eval.core.limiter_stats import in_words
from queue_eval.core.limits import Limits, weight_of
from queue_eval.core.location import DEFAULT_STORE, url_without_secret
from queue_eval.core.naming import checked_run_id
from queue_eval.queue.connection import check
from queue_eval.wiring import limiter_views, queues, stores
from queue_eval.wiring.queues import RunQueue

LIMIT_OPTIONS = (("--rpm", "requests"), ("--tpm", "tokens"), ("--input-tpm", "input"), ("--output-tpm", "output"))


@click.command()
@click.argument("run_id")
@click.option("--rpm", type=LIMIT, metavar="N", help="requests per minute, or none for no limit")
@click.option("--tpm", type=LIMIT, metavar="N", help="tokens per minute, input and output together, or none")
@click.option("--input-tpm", type=LIMIT, metavar="N", help="input tokens per minute, or none")
@click.option("--output-tpm", type=LIMIT, metavar="N", help="output tokens per minute, or none")
@click.option("--concurrency", type=click.IntRange(1, 4096), metavar="C", help="cases in flight in each worker")
@priority_option
@store_option()
@redis_option
@json_option
def command(
    run_id: str,
    rpm: float | None,
    tpm: float | None,
    input_tpm: float | None,
    output_tpm: float | None,
    concurrency: int | None,
    priority: str | None,
    store: str | None,
    redis_url: str | None,
    as_json: bool,
) -> int:
    """Change the limits, the priority or the concurrency of RUN_ID while it runs, for every worker and every call that
    waits already.

    Among runs that share a judge the strictest limit binds all. A change lasts while the run goes on, and a day.
    eval.yaml keeps its values.
    """
    run_id = checked_run_id(run_id)
    given = {"requests": rpm, "tokens": tpm, "input": input_tpm, "output": output_tpm}
    changes = {what: None if limit == float("inf") else limit for what, limit in given.items() if limit is not None}
    if priority:
        changes["weight"] = weight_of(priority)
    if not changes and concurrency is None:
        raise UsageError("name what to change: --rpm, --tpm, --input-tpm, --output-tpm, --concurrency or --priority")
    location = store or DEFAULT_STORE
    url = redis_url_of_run(redis_url, location, run_id)
    limits = asyncio.run(_tune(run_id, location, url, changes, concurrency))
    if as_json:
        print_json({"run_id": run_id, "limits": limits.known if limits else None, "concurrency": concurrency})
        return 0
    if concurrency is not None:
        print_lines(f"each worker holds {concurrency} cases in flight from its next claim on")
    if changes:
        print_lines(f"run {run_id} now has {in_words(limits) if limits else 'no limit'}")
    if priority:
        print_lines(f"run {run_id} now has weight {changes['weight']:g} beside other runs under the same limit")
    redis = f" --redis {shell_quoted(url_without_secret(redis_url))}" if redis_url else ""
    print_lines(f"next: queue-eval status {run_id} --store {shell_quoted(location)}{redis} --watch")
    return 0


async def _tune(
    run_id: str, location: str, url: str, changes: dict[str, float | None], concurrency: int | None
) -> Limits | None:
    """The limits of the run afterwards."""
    settings = await stores.read_settings(stores.open_store(location, run_id), run_id, location)
    async with queues.redis_client(url, os.environ) as client:
        await check(client, url)
        steering = RunQueue.of(client, run_id).steering
        state = (await steering.stats()).state  # NoInputError when this Redis does not know the run
        if state.over:
            raise UsageError(f"run {run_id!r} is {state}: nothing is left to tune")
        if concurrency is not None:
            await steering.resize(concurrency)
        view = limiter_views.limiter_view(client, settings)
        lane = limiter_views.lane_of_run(run_id, settings)
        if not changes:
            return lane.limits
        return await view.tune(lane, changes)
