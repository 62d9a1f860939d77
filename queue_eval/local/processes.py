"""A run's worker processes on this machine, from their start to the end of the run."""

import asyncio
import math
import time

from queue_eval.core.errors import UnavailableError
from queue_eval.core.location import local_folder
from queue_eval.local.forks import Template
from queue_eval.local.here import LOOK_EVERY_S, stopping_notice
from queue_eval.local.interrupts import Interrupts
from queue_eval.local.plan import Listeners, LocalPlan
from queue_eval.local.starter import WorkerStarter
from queue_eval.local.watch import Watch
from queue_eval.local.worker_pool import WorkerPool
from queue_eval.runs.run import Run
from queue_eval.wiring import limiter_views, queues, working
from queue_eval.wiring.allowed_judges import allowing

LEAVE_WITHIN_S = 15.0


class WorkerProcesses:
    def __init__(
        self,
        run: Run,
        plan: LocalPlan,
        interrupts: Interrupts,
        listeners: Listeners,
        *,
        redis_url: str,
        template: Template | None,
    ) -> None:
        concurrency = ["--concurrency", str(plan.concurrency)] if plan.concurrency else []
        starter = WorkerStarter(
            plan.run_id,
            ["--store", plan.store, *concurrency],
            redis_url=redis_url,
            environment={**_environment(plan), **allowing(run.settings.judge, run.settings.metrics)},
            logs=local_folder(plan.store) / plan.run_id / "logs",
            template=template,
        )
        self._run = run
        self._plan = plan
        self._interrupts = interrupts
        self._listeners = listeners
        self._leave_by = math.inf
        self._pool = WorkerPool(starter, plan.workers or run.settings.workers.processes)

    async def work(self, watch: Watch) -> None:
        """Return when the run is over.

        InterruptedRunError when the user stopped it, UnavailableError when no worker can run.
        """
        pool = self._pool
        pool.start()
        self._listeners.pool(pool)
        try:
            while True:
                stats = await watch.look()
                pool.supervise(stats.executions if stats else None)
                await self._forget_crashed()
                if stats and stats.state.over:
                    await self._until_left()
                    return
                self._stop_when_interrupted()
                if pool.failure:
                    raise UnavailableError(pool.failure)
                if not pool.alive:
                    raise self._plan.interrupted()
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            pool.end(LEAVE_WITHIN_S if self._interrupts.count < 2 else 0.1)

    async def _forget_crashed(self) -> None:
        while self._pool.crashed:
            prefix = working.worker_prefix(self._pool.crashed.pop())
            await limiter_views.forget_worker(self._run.limiter, prefix)

    def _stop_when_interrupted(self) -> None:
        grace_s = self._run.settings.workers.grace_s
        if self._interrupts.count and self._leave_by == math.inf:
            self._leave_by = time.monotonic() + grace_s + LEAVE_WITHIN_S
            self._listeners.notice(stopping_notice(grace_s))
            self._pool.stop()
        # a worker whose event loop is blocked handles no signal
        if self._interrupts.count > 1 or time.monotonic() > self._leave_by:
            self._pool.kill()

    async def _until_left(self) -> None:
        """Workers see that the run is drained, and leave by themselves."""
        until = time.monotonic() + LEAVE_WITHIN_S
        while self._pool.alive and time.monotonic() < until:
            self._pool.supervise()
            await asyncio.sleep(0.02)


def _environment(plan: LocalPlan) -> dict[str, str]:
    """Workers get the password under the name that every command knows; the manifest does not name the variable."""
    password = plan.environment.get(plan.redis.password_env or queues.PASSWORD_VARIABLE)
    return {**plan.environment, **({queues.PASSWORD_VARIABLE: password} if password else {})}
