"""From eval.yaml to an enqueued run: what `run` and `enqueue` share."""

import os
from collections.abc import Awaitable, Callable

from queue_eval.config.commit import commit_sha
from queue_eval.config.load import LoadedSettings
from queue_eval.core.manifest import Manifest
from queue_eval.core.meter import CaseMeter
from queue_eval.core.metric_spec import specs_of
from queue_eval.dataset.reader import CaseFile
from queue_eval.dataset.selection import Selection
from queue_eval.local.run import Produce
from queue_eval.ports import Store
from queue_eval.producer.producer import Produced
from queue_eval.wiring import judging, producing, stores
from queue_eval.wiring.allowed_judges import check_allowed, check_file
from queue_eval.wiring.clocks import steady_clock
from queue_eval.wiring.manifests import ManifestSettings
from queue_eval.wiring.queues import RunQueue


def from_file(
    loaded: LoadedSettings, cases: CaseFile, chosen: Selection, *, run_id: str, store_location: str, source: str
) -> Produce:
    settings = loaded.settings
    check_file(settings.judge, settings.metrics, os.environ, path=loaded.path)

    async def produce(queue: RunQueue, store: Store) -> Produced:
        inputs = producing.inputs_of(
            run_id,
            settings,
            source=source,
            selection=chosen.described,
            commit_sha=commit_sha(os.environ, loaded.path.parent),
        )
        specs = specs_of(inputs.settings["metrics"])
        calls = judging.build_calls(settings, queue.redis, run_id, "producer", os.environ)
        producer = producing.build_producer(store, queue, specs, stores.earlier_busy_s(store_location, run_id))
        try:
            return await producer.produce(
                chosen.of(cases), inputs, lambda: cases.duplicates, producing.resolver(settings, calls)
            )
        finally:
            await calls.close()

    return produce


def from_store(run_id: str, store_location: str) -> Produce:
    async def produce(queue: RunQueue, store: Store) -> Produced:
        manifest = await stores.read_manifest(store, run_id, store_location)
        frozen = ManifestSettings.of(manifest)
        producer = producing.build_producer(store, queue, frozen.metrics, stores.earlier_busy_s(store_location, run_id))
        produced = await producer.resume(manifest, sum(spec.judge_calls for spec in frozen.metrics))
        if not produced.state.over:
            check_allowed(frozen.judge, frozen.metrics, os.environ, run_id=run_id, store=store_location)
            await _checked_judge(manifest, frozen, queue, producer.note_overhead)
        return produced

    return produce


async def _checked_judge(
    manifest: Manifest,
    frozen: ManifestSettings,
    queue: RunQueue,
    note: Callable[[str, CaseMeter, float, str], Awaitable[None]],
) -> None:
    """The pre-flight call of a resumed run; a hold that a dead key left behind is lifted when the judge serves."""
    calls = judging.build_calls(frozen, queue.redis, manifest.run_id, "producer", os.environ)
    now = steady_clock()
    meter, started_at = CaseMeter(now), now()
    try:
        await producing.preflight(judging.build_scorer(frozen.metrics, calls, frozen.judge, frozen.retry), meter)
        await queue.steering.hold(None)
    finally:
        await note(manifest.run_id, meter, started_at, f"resume-{int(started_at * 1000)}")
        await calls.close()


def said(produced: Produced, cases: CaseFile | None) -> list[str]:
    """What a person should know about what was enqueued."""
    facts = produced.manifest.dataset
    lines = [
        f"run {produced.manifest.run_id}: {facts.cases} cases, {produced.enqueued} enqueued"
        + (f", {produced.stored} stored already" if produced.stored else "")
    ]
    if facts.duplicates:
        lines.append(f"{facts.duplicates} cases are identical to others; they are kept and counted apart")
    return lines + (cases.remarks if cases else [])
