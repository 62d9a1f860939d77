"""Enqueue the rest of a run again, from the store alone."""

from queue_eval.core.shard import Shard
from queue_eval.producer.producer import Produced
from queue_eval.runs.run import Run
from queue_eval.wiring import producing, stores


async def resume(run: Run, *, shard: Shard | None = None) -> Produced:
    """Enqueue each case, of all or of a shard's, that has no stored result. Safe to repeat.

    RunAbortedError when the run is over for good.
    """
    earlier_busy_s = stores.earlier_busy_s(run.location, run.run_id)
    producer = producing.build_producer(run.store, run.queue, run.settings.specs, earlier_busy_s)
    return await producer.resume(run.manifest, shard=shard)
