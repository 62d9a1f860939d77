"""A run from its cases to a verdict, carried by one pod: it enqueues, starts the workers' Jobs, and finalizes."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping

from queue_eval.config.load import LoadedSettings
from queue_eval.core.report import Report
from queue_eval.core.run import RunState, RunStats
from queue_eval.kubernetes.driver import Driver, time_left_s
from queue_eval.kubernetes.jobs import STATUS_EVERY_S
from queue_eval.kubernetes.plan import RunPlan
from queue_eval.runs.finish import finish_when_over, report_now
from queue_eval.runs.follow import Show
from queue_eval.runs.produce import Produce
from queue_eval.runs.redis import shared_redis
from queue_eval.runs.run import Run
from queue_eval.wiring import queues, stores
from queue_eval.wiring.queues import RunQueue

log = logging.getLogger("queue_eval.kubernetes")

REDIS_WITHIN_S = 300.0


async def drive(
    driver: Driver,
    plan: RunPlan,
    settings: LoadedSettings,
    produce: Produce,
    *,
    environment: Mapping[str, str],
    workers: int | None,
    showing: Callable[[Run], Show],
) -> Report:
    """Return the published report. Safe to be killed and started again at any point.

    `workers`: how many pods; None: as the plan has it. `showing` makes the listener that prints the run's status.
    """
    store = stores.open_store(plan.store, plan.run_id)
    await stores.probe_store(store, plan.store)
    owner = await asyncio.to_thread(driver.adopt_own_job, environment)
    redis = settings.settings.redis
    async with shared_redis(
        plan.redis_url, environment, password_env=redis.password_env, wait_s=REDIS_WITHIN_S, notice=_log_notice
    ) as client:
        queue = RunQueue.of(client, plan.run_id, queues.retention_of(redis))
        produced = await produce(queue, store)
        log.info("cases enqueued", extra={"event": "produced", "reason": f"{produced.manifest.dataset.cases} cases"})
        if not produced.state.over:
            new = await asyncio.to_thread(driver.start_workers, owner, size=workers)
            log.info(
                "workers' Job created" if new else "workers' Job is there already",
                extra={"event": "workers", "reason": "started" if new else "there already"},
            )
        run = Run(manifest=produced.manifest, location=plan.store, store=store, queue=queue)
        return await _finish(driver, run, showing(run), timeout_s=time_left_s(owner, time.time()))


def _log_notice(text: str) -> None:
    log.warning(text, extra={"event": "notice"})


async def _finish(driver: Driver, run: Run, show_status: Show, *, timeout_s: float | None) -> Report:
    """Follow the run and keep its Jobs in step with it. Where no Job can help, report what the store holds."""
    state: list[RunState] = []

    async def show(stats: RunStats) -> None:
        state[:] = [stats.state]
        await show_status(stats)

    stopped = threading.Event()
    tending = asyncio.create_task(
        asyncio.to_thread(driver.supervise, lambda: state[0] if state else None, stopped.is_set)
    )
    finishing = asyncio.create_task(finish_when_over(run, timeout_s=timeout_s, show=show, show_every_s=STATUS_EVERY_S))
    try:
        await asyncio.wait({tending, finishing}, return_when=asyncio.FIRST_COMPLETED)
        if not finishing.done() and (why := await tending):
            log.error(
                "no Job can help the run; reporting what there is", extra={"event": "reconcile_gave_up", "reason": why}
            )
            finishing.cancel()
            return await report_now(run)
        return await finishing
    finally:
        stopped.set()  # the interpreter waits for its threads, and this one would watch for ever
