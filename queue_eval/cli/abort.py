"""queue-eval abort"""

import asyncio
import os
import time

import click

from queue_eval.cli.options import json_option, redis_option, store_option, wait_option
from queue_eval.cli.output import print_json, print_lines, print_notice, shell_quoted
from queue_eval.cli.redis_of_run import redis_url_of_run
from queue_eval.core import objects
from queue_eval.core.errors import NoInputError
from queue_eval.core.location import DEFAULT_STORE, url_without_secret
from queue_eval.core.naming import checked_run_id
from queue_eval.core.run import RunState
from queue_eval.wiring import queues, stores
from queue_eval.wiring.queues import RunQueue

LOOK_EVERY_S = 0.5


@click.command()
@click.argument("run_id")
@store_option()
@redis_option
@wait_option
@json_option
def command(run_id: str, store: str | None, redis_url: str | None, wait_s: float, as_json: bool) -> int:
    """End RUN_ID: workers claim no more cases, release those that they hold, and exit with code 65.

    Stored results stay. `finalize` reports what there is, and the run never passes.
    """
    run_id = checked_run_id(run_id)
    location = store or DEFAULT_STORE
    url = redis_url_of_run(redis_url, location, run_id)
    state = asyncio.run(_abort(run_id, location, url, wait_s=wait_s))
    if as_json:
        print_json({"run_id": run_id, "state": state})
        return 0
    if state is RunState.ABORTED:
        print_lines(f"run {run_id} is aborted; what was scored stays in the store")
        redis = f" --redis {shell_quoted(url_without_secret(redis_url))}" if redis_url else ""
        print_lines(f"next: queue-eval finalize {run_id} --store {shell_quoted(location)}{redis}")
    else:
        print_lines(f"run {run_id} is {state} already: nothing was left to abort")
    return 0


async def _abort(run_id: str, location: str, url: str, *, wait_s: float) -> RunState:
    """In Redis first, which stops the spending; then in the store, which keeps it."""
    state = await _abort_in_redis(run_id, url, wait_s=wait_s)
    if state is RunState.ABORTED:
        store = stores.open_store(location, run_id)
        if await store.get(objects.MANIFEST):
            await stores.note_abort(store)
        else:
            print_notice(
                f"{location} holds no {objects.MANIFEST} of run {run_id!r}: Redis alone knows that it is aborted; name"
                " its store with --store, again"
            )
    return state


async def _abort_in_redis(run_id: str, url: str, *, wait_s: float) -> RunState:
    until = time.monotonic() + wait_s
    async with queues.awaited_redis(url, os.environ, wait_s=wait_s) as client:
        while True:
            try:
                return await RunQueue.of(client, run_id).steering.end(RunState.ABORTED)
            except NoInputError:
                if time.monotonic() >= until:
                    raise
            await asyncio.sleep(LOOK_EVERY_S)
