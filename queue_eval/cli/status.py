"""queue-eval status"""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import click

from queue_eval.cli.options import json_option, redis_option, store_option
from queue_eval.cli.output import clear_lines, fitting, print_json, print_lines
from queue_eval.cli.redis_of_run import redis_url_of_run
from queue_eval.core import objects
from queue_eval.core.errors import DataError, NoInputError, UnavailableError, UsageError
from queue_eval.core.limiter_stats import LimiterStats, in_words
from queue_eval.core.location import DEFAULT_STORE, store_option_of
from queue_eval.core.naming import checked_run_id
from queue_eval.core.progress import Progress
from queue_eval.core.run import RunStats
from queue_eval.core.status_line import StatusLine
from queue_eval.report.escape import for_terminal
from queue_eval.wiring import limiter_views, queues, stores
from queue_eval.wiring.queues import RunQueue

WATCH_EVERY_S = 1.0


@click.command()
@click.argument("run_id")
@store_option()
@redis_option
@click.option("--watch", is_flag=True, help="again every second until the run is over")
@json_option
def command(run_id: str, store: str | None, redis_url: str | None, watch: bool, as_json: bool) -> int:
    """How RUN_ID and the limiter of its judge stand: from Redis while it runs, from the store afterwards."""
    run_id = checked_run_id(run_id)
    location = store or DEFAULT_STORE
    try:
        url: str | None = redis_url_of_run(redis_url, location, run_id)
    except UsageError:
        url = None
    return asyncio.run(_status(run_id, location, url, named=redis_url is not None, watch=watch, as_json=as_json))


async def _status(run_id: str, location: str, url: str | None, *, named: bool, watch: bool, as_json: bool) -> int:
    above: list[str] = []  # what this command has shown last
    while True:
        stats, limiter = await _stats(run_id, location, url, named=named)
        if stats is None:
            return await _from_store(run_id, location, as_json=as_json)
        if as_json:
            print_json(StatusLine.of(run_id, stats, limiter).to_json())
        else:
            lines = [*_of_run(run_id, stats), *(_of_limiter(limiter) if limiter else ())]
            if watch and sys.stdout.isatty():
                lines = fitting(lines)
                if above:
                    clear_lines(above)
            print_lines("\n".join(lines))
            above = lines
        if not watch or stats.state.over:
            return 0
        await asyncio.sleep(WATCH_EVERY_S)


async def _stats(
    run_id: str, location: str, url: str | None, *, named: bool
) -> tuple[RunStats | None, LimiterStats | None]:
    if url is None:
        return None, None
    async with queues.redis_client(url, os.environ) as client:
        try:
            stats = await RunQueue.of(client, run_id).steering.stats()
        except (NoInputError, UnavailableError):
            if named:
                raise
            return None, None
        if stats.state.over:
            return stats, None
        try:
            settings = await stores.read_settings(stores.open_store(location, run_id), run_id, location)
        except NoInputError:
            return stats, None  # without the run's store its judge is unknown
        return stats, await limiter_views.limiter_now(limiter_views.limiter_view(client, settings))


def _of_run(run_id: str, stats: RunStats) -> Iterator[str]:
    progress = Progress.of(stats, elapsed_s=0.0, done_before=stats.terminal, price=None)
    yield f"run {run_id}: {stats.state}" + (f", HELD: {for_terminal(stats.hold)}" if stats.hold else "")
    yield f"  {for_terminal(progress.line)}"
    total = stats.total if stats.total is not None else f"{stats.known} so far"
    yield (
        f"  cases {total} = {stats.scored} scored + {stats.dead} dead + {stats.leased} leased + {stats.delayed} delayed"
        f" + {stats.ready} ready"
    )
    for worker in stats.workers:
        yield (
            f"  worker {for_terminal(worker.name)}: {worker.in_flight} of {worker.concurrency} in flight,"
            f" {worker.waiting} calls wait for the limiter, seen {worker.seen_s_ago:.0f} s ago"
        )


def _of_limiter(limiter: LimiterStats) -> Iterator[str]:
    slowed = f", controller at {limiter.factor:.0%}" if limiter.factor < 1 else ""
    paused = f", PAUSED for {limiter.paused_s:.0f} s" if limiter.paused_s else ""
    used = (
        f", {limiter.utilisation:.0%} of the limit used in the last minute" if limiter.utilisation is not None else ""
    )
    yield f"  limiter: {in_words(limiter.rate, limiter.limits)}{slowed}{paused}, {limiter.waiting} calls wait{used}"
    if limiter.headers.known:
        yield f"    the judge's answers name {in_words(limiter.headers)}"
    yield (
        f"    {limiter.released:,} released, rate-limited {limiter.refused:,} times, {limiter.cuts} cuts,"
        f" {limiter.pauses} pauses; releases leave up to {1000 * limiter.jitter_s:.0f} ms late"
    )
    if limiter.most_in_flight is not None:
        binds = ", which is all that the judge serves at a time" if limiter.in_flight >= limiter.most_in_flight else ""
        yield f"    {limiter.in_flight} of at most {limiter.most_in_flight} calls in flight{binds}"
    if limiter.outage_share.known:
        yield f"    without Redis each of {limiter.processes} processes may do {in_words(limiter.outage_share)}"
    for lane in limiter.lanes if len(limiter.lanes) > 1 else ():
        yield (
            f"    run {for_terminal(lane.run_id)}: weight {lane.weight:g}, {lane.waiting} calls wait,"
            f" {in_words(lane.configured)}"
        )


async def _from_store(run_id: str, location: str, *, as_json: bool) -> int:
    store = stores.open_store(location, run_id)
    manifest = await stores.read_manifest(store, run_id, location)
    report = await store.get(objects.REPORT)
    body = _report_body(run_id, report) if report else {}
    results = len({objects.case_of_result(name) async for name in store.names(objects.RESULTS)})
    is_aborted = await store.get(objects.ABORTED) is not None
    state = "FINALIZED" if report else "ABORTED" if is_aborted else "STOPPED"
    if as_json:
        print_json(
            {
                "run_id": run_id,
                "state": state,
                "aborted": is_aborted,
                "total": manifest.dataset.cases,
                "scored": results,
                "verdict": body.get("verdict"),
            }
        )
        return 0
    print_lines(
        f"run {run_id}: {results} of {manifest.dataset.cases} cases have a stored result"
        + ("; it was aborted" if is_aborted else "")
        + (f"; verdict {body['verdict']}" if report else "")
    )
    where = f"{run_id}{store_option_of(location)}"
    print_lines(
        f"report: {location}/{run_id}/report.html"
        if report
        else f"next: queue-eval finalize {where} --no-wait"
        if is_aborted
        else f"next: queue-eval run --resume {where}"
    )
    return 0


def _report_body(run_id: str, data: bytes) -> dict[str, Any]:
    command = f"queue-eval finalize {run_id}"
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise DataError(
            f"run {run_id!r}: {objects.REPORT} is none of queue-eval's; write it anew with {command}", command=command
        )
    return body
