"""`queue-eval run`: produce, work and finish on one machine, and clean up afterwards."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from queue_eval.core.errors import UsageError
from queue_eval.core.location import local_folder
from queue_eval.core.report import Report
from queue_eval.local.find_redis import emulation, own_server
from queue_eval.local.forks import Template
from queue_eval.local.here import work_here
from queue_eval.local.interrupts import Interrupts
from queue_eval.local.plan import Listeners, LocalPlan
from queue_eval.local.processes import WorkerProcesses
from queue_eval.local.redis_address_file import RedisAddressFile
from queue_eval.local.signals import SignalHandlers
from queue_eval.local.watch import Watch
from queue_eval.runs.finish import finish, unless_all_is_stored
from queue_eval.runs.produce import Produce
from queue_eval.runs.redis import shared_redis
from queue_eval.runs.run import Run
from queue_eval.wiring import queues, stores
from queue_eval.wiring.queues import RunQueue


class LocalRun:
    def __init__(self, plan: LocalPlan, produce: Produce, listeners: Listeners, template: Template | None) -> None:
        self._plan = plan
        self._produce = produce
        self._listeners = listeners
        self._template = template

    async def run(self) -> Report:
        """Return the published report. InterruptedRunError when it was stopped; everything is released then."""
        plan, started_at, interrupts = self._plan, time.monotonic(), Interrupts()
        store = stores.open_store(plan.store, plan.run_id)
        await stores.probe_store(store, plan.store)
        async with self._redis() as (client, url):
            queue = RunQueue.of(client, plan.run_id, queues.retention_of(plan.redis))
            with SignalHandlers(interrupts):
                produced = await interrupts.end_at_once(asyncio.create_task(self._produce(queue, store)))
                self._listeners.produced(produced)
                run = Run(manifest=produced.manifest, location=plan.store, store=store, queue=queue)
                if not produced.state.over:
                    watch = Watch(run, plan, self._listeners, produced, started_at=started_at)
                    async with unless_all_is_stored(run):
                        await self._work(run, url, watch, interrupts)
                return await finish(run)

    async def _work(self, run: Run, url: str | None, watch: Watch, interrupts: Interrupts) -> None:
        if url is None:
            await work_here(run, self._plan, watch, interrupts, self._listeners)
        else:
            processes = WorkerProcesses(
                run, self._plan, interrupts, self._listeners, redis_url=url, template=self._template
            )
            await processes.work(watch)

    @asynccontextmanager
    async def _redis(self) -> AsyncIterator[tuple[Redis, str | None]]:
        """Yield a client, and the URL for the workers; None when only this process can reach it."""
        plan = self._plan
        if plan.redis_url:
            async with shared_redis(
                plan.redis_url, plan.environment, password_env=plan.redis.password_env, notice=self._listeners.notice
            ) as client:
                yield client, plan.redis_url
            return
        contact = RedisAddressFile(local_folder(plan.store), plan.run_id)
        if contact.url():
            raise UsageError(
                f"run {plan.run_id!r} is under way in another process; watch it with queue-eval status, or stop that"
                " one first"
            )
        server = own_server()
        if server is None:
            self._listeners.notice(
                "no redis-server was found: one worker runs in this process on an emulation (install Redis or name one"
                " with --redis for more)"
            )
            async with emulation() as client:
                yield client, None
            return
        async with server as url, queues.redis_client(url, {}) as client:
            with contact.showing(url):
                yield client, url
