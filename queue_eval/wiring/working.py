"""A worker on a run, and its finalizer."""

import asyncio
import os
import random
import secrets
import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from queue_eval.core.attempt import Backoff
from queue_eval.core.manifest import Manifest
from queue_eval.core.settings.retry import RetrySettings
from queue_eval.core.settings.workers import WorkerSettings
from queue_eval.finalizer.finalizer import Finalizer
from queue_eval.ports.clock import Clock
from queue_eval.ports.store import Store
from queue_eval.queue.claim import WorkerIdentity
from queue_eval.report.writers import all_writers
from queue_eval.wiring.clocks import steady_clock
from queue_eval.wiring.judging import build_calls, build_scorer
from queue_eval.wiring.queues import RunQueue
from queue_eval.wiring.stores import build_retrying
from queue_eval.worker.case_executor import Attempts, CaseExecutor
from queue_eval.worker.prober import Prober
from queue_eval.worker.records import Records
from queue_eval.worker.watchdog import Watchdog
from queue_eval.worker.worker import Capacity, Liveness, Worker

if TYPE_CHECKING:
    # importing DeepEval takes seconds: only the commands that judge do it
    from queue_eval.judge.scorer import DeepEvalScorer


PROBE_EVERY_S = 5.0  # of a judge for which the run is held


def worker_prefix(pid: int) -> str:
    """Begin the names of a process of this machine, and of no other."""
    return f"{socket.gethostname()}-{pid}-"


def worker_identity(concurrency: int) -> WorkerIdentity:
    return WorkerIdentity(
        name=f"{worker_prefix(os.getpid())}{secrets.token_hex(3)}",
        hostname=socket.gethostname(),
        pid=os.getpid(),
        concurrency=concurrency,
        born=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    )


def build_worker(
    manifest: Manifest,
    queue: RunQueue,
    store: Store,
    environment: Mapping[str, str],
    *,
    concurrency: int | None = None,
    wait_s: float = 0.0,
    alive_file: Path | None = None,
) -> "tuple[Worker, DeepEvalScorer, WorkerIdentity]":
    settings = manifest.settings
    cases = concurrency or settings.workers.concurrency
    identity = worker_identity(cases)
    claiming = queue.claiming(identity, settings.workers)
    calls = build_calls(
        settings, queue.redis, manifest.run_id, identity.name, environment, weighs=bool(manifest.is_weighed)
    )
    scorer = build_scorer(settings.specs, calls, settings.judge, settings.retry)
    retrying, now = build_retrying(), steady_clock()
    executor = CaseExecutor(
        queue=claiming,
        steering=queue.steering,
        records=Records(store, run_id=manifest.run_id, worker=identity.name, now=now),
        scorer=scorer,
        retrying=retrying,
        attempts=_attempts(settings.retry),
        now=now,
        chance=random.random,
    )
    prober = Prober(
        run_id=manifest.run_id,
        worker=identity.name,
        steering=queue.steering,
        store=store,
        scorer=scorer,
        interval_s=PROBE_EVERY_S,
        now=now,
    )
    worker = Worker(
        queue=claiming,
        executor=executor,
        scorer=scorer,
        prober=prober,
        retrying=retrying,
        capacity=_capacity(settings.workers, cases),
        liveness=_liveness(settings.workers, alive_file),
        clock=Clock(now=time.monotonic, sleep=asyncio.sleep, chance=random.random),
        unknown_for_s=wait_s,
    )
    return worker, scorer, identity


def _attempts(settings: RetrySettings) -> Attempts:
    backoff = Backoff(base_s=settings.base_delay_s, max_s=settings.max_delay_s)
    return Attempts(most=settings.case_attempts, backoff=backoff)


def _capacity(settings: WorkerSettings, cases: int) -> Capacity:
    return Capacity(cases=cases, size_bytes=int(settings.max_mb_in_flight * 1e6), grace_s=settings.grace_s)


def _liveness(settings: WorkerSettings, alive_file: Path | None) -> Liveness:
    # three times in a lease the heartbeat reports to the watchdog that the event loop turns
    watchdog = Watchdog(patience_s=max(settings.blocked_s, settings.lease_s))
    return Liveness(lease_s=settings.lease_s, watchdog=watchdog, alive_file=alive_file)


def build_finalizer(store: Store, manifest: Manifest) -> Finalizer:
    return Finalizer(store, writers=lambda folder: all_writers(folder, manifest))
