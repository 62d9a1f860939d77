"""Make a run's report, its verdict, and mark the run as finalized."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from redis.exceptions import RedisError

from queue_eval.core import objects
from queue_eval.core.errors import ForeignKeysError, UnavailableError
from queue_eval.core.limiter_stats import merged
from queue_eval.core.report import Report
from queue_eval.core.run import RunState, RunStats
from queue_eval.runs.follow import Follower, Show
from queue_eval.runs.resume import resume
from queue_eval.runs.run import Run
from queue_eval.wiring import stores, working

log = logging.getLogger("queue_eval.runs")


async def finish(run: Run) -> Report:
    """Publish the report of a run that is over, with the limiter's timeline, and mark the run FINALIZED."""
    report = await report_now(run)
    # the report is published, and is the verdict: in a Redis that is unavailable or damaged now the run expires
    with suppress(UnavailableError, ForeignKeysError):
        await run.queue.steering.end(RunState.FINALIZED)
    return report


@asynccontextmanager
async def unless_all_is_stored(run: Run) -> AsyncIterator[None]:
    """Damaged counts in Redis are no matter where the store has an outcome of every case; else ForeignKeysError."""
    try:
        yield
    except ForeignKeysError as error:
        if await _outcomes(run) < run.manifest.dataset.cases:
            raise
        log.warning("%s. The store has every case, and the report is made of it", error)


async def _outcomes(run: Run) -> int:
    """Count the cases with a result or a dead letter."""
    cases = {objects.case_of_result(name) async for name in run.store.names(objects.RESULTS)}
    async for name in run.store.names(objects.EXECUTIONS):
        if dead := objects.dead_letter(name):
            cases.add(dead[0])
    return len(cases)


async def report_now(run: Run) -> Report:
    """Publish the report of what the store holds now. A run that is not over never passes."""
    await _keep_timeline(run)
    return await working.build_finalizer(run.store, run.manifest).finalize(run.manifest)


async def finish_when_over(
    run: Run,
    *,
    timeout_s: float | None,
    show: Show | None = None,
    show_every_s: float = 0.0,
    unknown_for_s: float = 0.0,
) -> Report:
    """Wait until the run is over, then finish it; after `timeout_s` report what the store holds.

    A caller that shows how the run stands is its only follower, so it also brings back a run that Redis has lost.
    """
    follower = Follower(
        run.queue.steering,
        resume=lambda: resume(run),
        brings_runs_back=show is not None,
        unknown_for_s=unknown_for_s,
        notice=lambda text: log.warning(text, extra={"event": "redis_lost_cases"}),
        sleep=asyncio.sleep,
        now=time.monotonic,
    )
    ended: RunStats | None = None
    async with unless_all_is_stored(run):
        ended = await follower.until_over(timeout_s=timeout_s, show=show, show_every_s=show_every_s)
    if ended is None:
        return await report_now(run)
    if ended.state is RunState.ABORTED:
        await stores.note_abort(run.store)
    return await finish(run)


async def _keep_timeline(run: Run) -> None:
    """Store what the limiter did during the run. A report without it is a report all the same."""
    try:
        seen = await run.limiter.timeline()
    except (RedisError, OSError):
        return
    except (ValueError, LookupError, TypeError, AttributeError):
        log.warning("the limiter's state in Redis cannot be read; the report has no timeline of it")
        return
    if seen:
        stored = await run.store.get(objects.LIMITER)
        await run.store.put(objects.LIMITER, merged(stored, seen, since=run.manifest.created_at))
