"""A run's one worker in this process, where no Redis server could be found."""

import asyncio

from queue_eval.core.errors import EXIT_INTERRUPTED
from queue_eval.local.interrupts import Interrupts
from queue_eval.local.plan import Listeners, LocalPlan
from queue_eval.local.watch import Watch
from queue_eval.runs.run import Run
from queue_eval.wiring import working

LOOK_EVERY_S = 0.25


async def work_here(run: Run, plan: LocalPlan, watch: Watch, interrupts: Interrupts, listeners: Listeners) -> None:
    """Return when the run is over. InterruptedRunError when the user stopped it."""
    worker, scorer, _ = working.build_worker(
        run.manifest, run.queue, run.store, plan.environment, concurrency=plan.concurrency
    )
    task = asyncio.create_task(worker.run())
    is_stopping = False
    try:
        while not task.done():
            await watch.look()
            if interrupts.count and not is_stopping:
                is_stopping = True
                listeners.notice(stopping_notice(run.settings.workers.grace_s))
                worker.stop()
            if interrupts.count > 1:
                raise plan.interrupted()
            await asyncio.wait({task}, timeout=LOOK_EVERY_S)
        if task.result() == EXIT_INTERRUPTED:
            raise plan.interrupted()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await scorer.close()


def stopping_notice(grace_s: float) -> str:
    return f"stopping: up to {grace_s:g} s for what is in flight; press Ctrl-C again to end at once"
