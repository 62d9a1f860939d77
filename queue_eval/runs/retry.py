"""Open the cases of a run again that have no score."""

from collections.abc import Mapping

from queue_eval.core.errors import RunAbortedError
from queue_eval.core.manifest import Manifest
from queue_eval.core.objects import ABORTED
from queue_eval.ports.store import Store
from queue_eval.producer.history import open_again
from queue_eval.producer.producer import Produced
from queue_eval.runs.produce import Produce, from_store
from queue_eval.runs.resume import resume
from queue_eval.runs.run import Run
from queue_eval.wiring import stores
from queue_eval.wiring.queues import RunQueue


async def retry(queue: RunQueue, run_id: str, location: str) -> int:
    """Make a run's cases without scores ready again on a Redis that knows the run; return how many there are."""
    store = stores.open_store(location, run_id)
    manifest = await _open_manifest(store, run_id, location)
    await queue.steering.stats()  # a Redis that does not know the run is not the one that is meant
    await open_again(store)
    produced = await resume(Run(manifest=manifest, location=location, store=store, queue=queue))
    return produced.enqueued + await queue.enqueueing.retry_dead()


def retried(run_id: str, location: str, environment: Mapping[str, str]) -> Produce:
    """Return how a run goes on, on a Redis that does not know it, with its cases without scores opened again."""

    async def produce(queue: RunQueue, store: Store) -> Produced:
        await _open_manifest(store, run_id, location)
        await open_again(store)
        return await from_store(run_id, location, environment)(queue, store)

    return produce


async def _open_manifest(store: Store, run_id: str, location: str) -> Manifest:
    """RunAbortedError when the run is over for good."""
    manifest = await stores.read_manifest(store, run_id, location)
    if await store.get(ABORTED):
        raise RunAbortedError(run_id)
    return manifest
