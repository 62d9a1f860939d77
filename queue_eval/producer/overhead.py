"""Judge calls that belong to no case."""

from queue_eval.core import objects
from queue_eval.core.ending import Ending
from queue_eval.core.meter import CaseMeter
from queue_eval.core.record import Record
from queue_eval.ports.store import Store


async def store_overhead(
    store: Store, run_id: str, meter: CaseMeter, *, name: str, started_at: float, ended_at: float
) -> None:
    """Store a record of what the pre-flight call and GEval's steps took, so that the report counts it. Unix seconds."""
    if not meter.usage.spent:
        return
    record = Record(
        run_id=run_id,
        case_id="",
        ending=Ending.OVERHEAD,
        execution=name,
        delivery=0,
        worker="producer",
        started_at=started_at,
        ended_at=ended_at,
        usage=meter.usage,
        reason="pre-flight call and evaluation steps",
    )
    await store.create(objects.execution("_producer", name, Ending.OVERHEAD), record.to_json())
