"""From eval.yaml, or from what the store holds of a run, to an enqueued run."""

from collections.abc import Callable, Coroutine, Mapping

from queue_eval.config.commit import commit_sha
from queue_eval.config.load import LoadedSettings
from queue_eval.dataset.reader import CaseFile
from queue_eval.dataset.selection import Selection
from queue_eval.ports.store import Store
from queue_eval.producer.producer import Produced
from queue_eval.runs.preflight import preflight_again, resolver
from queue_eval.runs.resume import resume
from queue_eval.runs.run import Run
from queue_eval.wiring import judging, producing, stores
from queue_eval.wiring.allowed_judges import check_allowed
from queue_eval.wiring.queues import RunQueue

Produce = Callable[[RunQueue, Store], Coroutine[None, None, Produced]]


def from_file(
    loaded: LoadedSettings,
    cases: CaseFile,
    chosen: Selection,
    *,
    run_id: str,
    location: str,
    source: str,
    environment: Mapping[str, str],
) -> Produce:
    """Return how the run of an eval.yaml is produced.

    `location`: of its store. `source`: the cases, as a user names them.
    """
    settings = loaded.settings.frozen

    async def produce(queue: RunQueue, store: Store) -> Produced:
        commit = commit_sha(environment, loaded.path.parent)
        inputs = producing.inputs_of(run_id, settings, source=source, selection=chosen.described, commit_sha=commit)
        calls = judging.build_calls(settings, queue.redis, run_id, "producer", environment)
        earlier_busy_s = stores.earlier_busy_s(location, run_id)
        producer = producing.build_producer(store, queue, settings.specs, earlier_busy_s)
        try:
            return await producer.produce(chosen.of(cases), inputs, lambda: cases.duplicates, resolver(settings, calls))
        finally:
            await calls.close()

    return produce


def from_store(run_id: str, location: str, environment: Mapping[str, str]) -> Produce:
    """Return how a run goes on whose manifest alone is at hand.

    ConfigError where its judge is one that the environment, or this machine, does not allow a manifest to name.
    """

    async def produce(queue: RunQueue, store: Store) -> Produced:
        manifest = await stores.read_manifest(store, run_id, location)
        run = Run(manifest=manifest, location=location, store=store, queue=queue)
        produced = await resume(run)
        if not produced.state.over:
            check_allowed(run.settings.judge, run.settings.metrics, environment, run_id=run_id, store=location)
            await preflight_again(run, environment)
        return produced

    return produce
