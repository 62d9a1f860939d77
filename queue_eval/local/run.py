"""`queue-eval run`: produce, work and finalize on one machine, and clean up after itself."""

import asyncio
import logging
import math
import shlex
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from redis.asyncio import Redis

from queue_eval.config.settings import RedisSettings
from queue_eval.core.errors import EXIT_INTERRUPTED, InterruptedRunError, NoInputError, UnavailableError, UsageError
from queue_eval.core.location import is_remote, local_folder, store_option_of
from queue_eval.core.manifest import Manifest
from queue_eval.core.progress import Progress
from queue_eval.core.report import Report
from queue_eval.core.run import RunState, RunStats
from queue_eval.finalizer.awaiting import STALLED_AFTER_S
from queue_eval.local.contact import Contact
from queue_eval.local.crew import Crew
from queue_eval.local.find_redis import emulation, own_server
from queue_eval.local.forks import Template
from queue_eval.local.signals import SignalHandlers
from queue_eval.local.starter import WorkerStarter
from queue_eval.ports import Store
from queue_eval.producer.producer import Produced
from queue_eval.queue.connection import check
from queue_eval.queue.server import check_server
from queue_eval.wiring import limiter_views, producing, queues, stores, working
from queue_eval.wiring.allowed_judges import allowing
from queue_eval.wiring.manifests import ManifestSettings
from queue_eval.wiring.queues import RunQueue

log = logging.getLogger("queue_eval.local")

LOOK_EVERY_S = 0.25
LEAVE_WITHIN_S = 15.0

Produce = Callable[[RunQueue, Store], Coroutine[None, None, Produced]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalPlan:
    run_id: str
    store: str
    redis_url: str | None  # None: a server of our own, or the emulation
    redis: RedisSettings
    workers: int | None
    concurrency: int | None
    environment: Mapping[str, str]
    eval_yaml: str | None = None  # None: the run's manifest alone says what it is


@dataclass(slots=True, kw_only=True)
class Listeners:
    """Who is told what happens."""

    produced: Callable[[Produced], None]
    progress: Callable[[Progress], None]
    notice: Callable[[str], None]
    crew: Callable[[Crew], None] = field(default=lambda _: None)


class LocalRun:
    def __init__(self, plan: LocalPlan, produce: Produce, tell: Listeners, template: Template | None) -> None:
        self._plan = plan
        self._template = template
        self._produce = produce
        self._tell = tell
        self._interrupts = 0
        self._producing: asyncio.Task[Produced] | None = None
        self._started_at = time.monotonic()
        self._held_since: float | None = None
        self._stalled_since: float | None = None

    async def run(self) -> Report:
        """The published report. InterruptedRunError when it was stopped; everything is released then."""
        plan = self._plan
        store = stores.open_store(plan.store, plan.run_id)
        await stores.probe_store(store, plan.store)
        async with self._redis() as (client, url):
            queue = RunQueue.of(client, plan.run_id, queues.retention_of(plan.redis))
            with self._signals():
                produced = await self._produced(queue, store)
                self._tell.produced(produced)
                manifest = produced.manifest
                if not produced.state.over:
                    await self._work(manifest, queue, store, url, produced)
                await limiter_views.keep_timeline(client, manifest, store)
                report = await working.build_finalizer(store, manifest).finalize(
                    manifest, ManifestSettings.of(manifest).gate
                )
                # the report stands, and is the verdict: a Redis that is away now forgets the run by itself
                with suppress(UnavailableError):
                    await queue.steering.end(RunState.FINALIZED)
                return report

    async def _produced(self, queue: RunQueue, store: Store) -> Produced:
        """An interrupt ends it at once: producing again goes on where it stood."""
        self._producing = asyncio.create_task(self._produce(queue, store))
        try:
            return await self._producing
        except asyncio.CancelledError:
            raise InterruptedRunError(
                "stopped before anything was judged; give the same command again to go on"
            ) from None
        finally:
            self._producing = None

    # --- Redis ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _redis(self) -> "AsyncIterator[tuple[Redis, str | None]]":
        """A client and the URL for the workers; no URL when only this process can reach it."""
        if self._plan.redis_url:
            password_env = self._plan.redis.password_env
            async with queues.redis_client(
                self._plan.redis_url, self._plan.environment, password_env=password_env
            ) as client:
                await check(client, self._plan.redis_url)
                await check_server(client, self._plan.redis_url, self._tell.notice)
                yield client, self._plan.redis_url
            return
        if self._contact().url():
            raise UsageError(
                f"run {self._plan.run_id!r} is under way in another process; watch it with queue-eval status, or stop that one first"
            )
        server = own_server()
        if server is None:
            self._tell.notice(
                "no redis-server was found: one worker runs in this process on an emulation (install Redis or name one with --redis for more)"
            )
            async with emulation() as client:
                yield client, None
            return
        async with server as url, queues.redis_client(url, {}) as client:
            with self._contact().showing(url):
                yield client, url

    def _contact(self) -> Contact:
        return Contact(local_folder(self._plan.store), self._plan.run_id)

    # --- the workers ---------------------------------------------------------------------------------------------

    async def _work(
        self, manifest: Manifest, queue: RunQueue, store: Store, url: str | None, produced: Produced
    ) -> None:
        if url is None:
            await self._work_here(manifest, queue, store, produced)
            return
        settings = ManifestSettings.of(manifest)
        plan = self._plan
        concurrency = ["--concurrency", str(plan.concurrency)] if plan.concurrency else []
        starter = WorkerStarter(
            plan.run_id,
            ["--store", plan.store, *concurrency],
            redis_url=url,
            environment={**self._crew_environment(), **allowing(settings.judge, settings.metrics)},
            logs=local_folder(plan.store) / plan.run_id / "logs",
            template=self._template,
        )
        crew = Crew(starter, plan.workers or settings.workers.processes)
        crew.start()
        self._tell.crew(crew)
        try:
            await self._watch(manifest, queue, crew, settings, produced)
        finally:
            crew.end(LEAVE_WITHIN_S if self._interrupts < 2 else 0.1)

    def _crew_environment(self) -> dict[str, str]:
        """Workers get the password under the name that every verb knows; the manifest does not name the variable."""
        password = self._plan.environment.get(self._plan.redis.password_env or queues.PASSWORD_VARIABLE)
        return {**self._plan.environment, **({queues.PASSWORD_VARIABLE: password} if password else {})}

    async def _work_here(self, manifest: Manifest, queue: RunQueue, store: Store, produced: Produced) -> None:
        settings = ManifestSettings.of(manifest).workers
        worker, scorer, _ = working.build_worker(
            manifest, queue, store, self._plan.environment, concurrency=self._plan.concurrency
        )
        task = asyncio.create_task(worker.run())
        told = False
        try:
            while not task.done():
                stats = await queue.steering.stats()
                self._show(stats, manifest, produced)
                self._check_hold(stats, settings.hold_timeout_s)
                if self._interrupts and not told:
                    told = True
                    self._tell_stopping(settings.grace_s)
                    worker.stop()
                if self._interrupts > 1:
                    raise self._interrupted()
                await asyncio.wait({task}, timeout=LOOK_EVERY_S)
            if task.result() == EXIT_INTERRUPTED:
                raise self._interrupted()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await scorer.close()

    def _tell_stopping(self, grace_s: float) -> None:
        self._tell.notice(f"stopping: up to {grace_s:g} s for what is in flight; once more Ctrl-C ends it at once")

    async def _watch(
        self, manifest: Manifest, queue: RunQueue, crew: Crew, settings: ManifestSettings, produced: Produced
    ) -> None:
        leave_by = math.inf
        while True:
            stats = await self._look(queue, manifest)
            crew.tend(stats.executions if stats else None)
            while crew.crashed:
                prefix = working.worker_prefix(crew.crashed.pop())
                await limiter_views.forget_worker(queue.redis, manifest.settings, prefix)
            if stats:
                self._show(stats, manifest, produced)
                if stats.state is RunState.ABORTED:
                    await stores.note_abort(stores.open_store(self._plan.store, self._plan.run_id))
                    raise InterruptedRunError(f"run {self._plan.run_id!r} was aborted")
                if stats.state.over:
                    await self._dismissed(crew)
                    return
                self._check_hold(stats, settings.workers.hold_timeout_s)
            if self._interrupts and leave_by == math.inf:
                leave_by = time.monotonic() + settings.workers.grace_s + LEAVE_WITHIN_S
                self._tell_stopping(settings.workers.grace_s)
                crew.stop()
            if crew.failure:
                raise UnavailableError(crew.failure)
            if self._interrupts > 1 or time.monotonic() > leave_by:  # a blocked event loop hears no signal
                crew.kill()
            if not crew.alive and (not stats or not stats.state.over):
                raise self._interrupted()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self, queue: RunQueue, manifest: Manifest) -> RunStats | None:
        """None while Redis is away. A Redis that forgot the run gets it again, without what the store already has."""
        try:
            stats = await queue.steering.stats()
            if not self._has_lost_cases(stats):
                return stats
            self._tell.notice("Redis lost cases of the run; enqueueing what has no stored result")
        except UnavailableError:
            return None
        except NoInputError:
            self._tell.notice("Redis lost the run; enqueueing what has no stored result")
        await self._bring_back(queue, manifest)
        return None

    def _has_lost_cases(self, stats: RunStats) -> bool:
        if not stats.stalled:
            self._stalled_since = None
            return False
        self._stalled_since = self._stalled_since or time.monotonic()
        if time.monotonic() - self._stalled_since < STALLED_AFTER_S:
            return False
        self._stalled_since = None
        return True

    async def _bring_back(self, queue: RunQueue, manifest: Manifest) -> None:
        store = stores.open_store(self._plan.store, self._plan.run_id)
        specs = ManifestSettings.of(manifest).metrics
        with suppress(UnavailableError):
            await producing.build_producer(store, queue, specs, {}).resume(manifest, sum(s.judge_calls for s in specs))

    async def _dismissed(self, crew: Crew) -> None:
        """They see that the run is drained and leave by themselves."""
        until = time.monotonic() + LEAVE_WITHIN_S
        while crew.alive and time.monotonic() < until:
            crew.tend()
            await asyncio.sleep(0.02)

    def _show(self, stats: RunStats, manifest: Manifest, produced: Produced) -> None:
        price = manifest.settings["judge"].get("price")
        prices = (price["input_per_million_usd"], price["output_per_million_usd"]) if price else None
        elapsed_s = time.monotonic() - self._started_at
        self._tell.progress(
            Progress.of(stats, elapsed_s=elapsed_s, done_before=produced.stored + produced.dead, price=prices)
        )

    def _check_hold(self, stats: RunStats, timeout_s: float) -> None:
        if stats.hold is None:
            self._held_since = None
        elif self._held_since is None:
            self._held_since = time.monotonic()
            self._tell.notice(f"held, nobody claims: {stats.hold}")
        elif time.monotonic() - self._held_since > timeout_s:
            raise InterruptedRunError(f"held for {timeout_s:g} s: {stats.hold}; mend it, then: {self.resume_command}")

    # --- stopping ------------------------------------------------------------------------------------------------

    @property
    def resume_command(self) -> str:
        plan = self._plan
        # where others can write the manifest, only the file says which judge is meant
        file = f"{shlex.quote(plan.eval_yaml)} " if plan.eval_yaml and is_remote(plan.store) else ""
        return f"queue-eval run {file}--resume {plan.run_id}{store_option_of(plan.store)}"

    def _interrupted(self) -> InterruptedRunError:
        return InterruptedRunError(f"stopped; every finished case is kept. Go on with: {self.resume_command}")

    def _signals(self) -> SignalHandlers:
        return SignalHandlers(self._interrupt)

    def _interrupt(self) -> None:
        self._interrupts += 1
        if self._producing:
            self._producing.cancel()
