"""From a run that goes on to its published report: what `finalize` and `k8s drive` share."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from queue_eval.cli.say import say_json
from queue_eval.cli.status_body import status_body
from queue_eval.core.errors import UnavailableError
from queue_eval.core.manifest import Manifest
from queue_eval.core.report import Report
from queue_eval.core.run import RunState, RunStats
from queue_eval.finalizer.awaiting import Awaiting
from queue_eval.ports import Store
from queue_eval.wiring import limiter_views, producing, stores, working
from queue_eval.wiring.manifests import ManifestSettings
from queue_eval.wiring.queues import RunQueue

Tell = Callable[[RunStats], Awaitable[object]]

WORKERS_NAMED = 20  # of a run with hundreds, a line of the log would be too long


async def followed(
    manifest: Manifest, queue: RunQueue, store: Store, *, timeout_s: float | None, tell: Tell | None, tell_every_s: float | None, unknown_for_s: float = 0.0
) -> Report:  # fmt: skip
    """Waits for drained, then reports. Who tells how the run stands also brings it back when Redis has lost it all."""
    settings = ManifestSettings.of(manifest)

    async def restore() -> None:
        producer = producing.build_producer(store, queue, settings.metrics, {})
        await producer.resume(manifest, sum(spec.judge_calls for spec in settings.metrics))

    async def nothing(_: RunStats) -> None:
        return

    awaiting = Awaiting(
        queue.steering,
        restore=restore,
        restores_runs=tell is not None,
        unknown_for_s=unknown_for_s,
        tell=tell or nothing,
        tell_every_s=tell_every_s or 0.0,
        sleep=asyncio.sleep,
        now=time.monotonic,
    )
    ended = await awaiting.over(timeout_s=timeout_s)
    if ended and ended.state is RunState.ABORTED:
        await stores.note_abort(store)
    await limiter_views.keep_timeline(queue.redis, manifest, store)
    report = await working.build_finalizer(store, manifest).finalize(manifest, settings.gate)
    if ended:
        # the report stands, and is the verdict: a Redis that is away now forgets the run by itself
        with suppress(UnavailableError):
            await queue.steering.end(RunState.FINALIZED)
    return report


def saying(queue: RunQueue, manifest: Manifest) -> Tell:
    """Says how the run stands as a JSON line: the log of this process is what a far operator reads."""

    async def tell(stats: RunStats) -> None:
        limiter = await limiter_views.limiter_now(queue.redis, manifest.settings)
        say_json({"event": "status", **status_body(manifest.run_id, stats, limiter, most_workers=WORKERS_NAMED)})

    return tell
