"""What executions leave in the store: results, dead letters, and what every other one has spent."""

import asyncio

from queue_eval.core import objects
from queue_eval.core.ending import Ending
from queue_eval.core.meter import CaseMeter
from queue_eval.core.record import MetricResult, Record
from queue_eval.core.usage import Usage
from queue_eval.ports.clock import Now
from queue_eval.ports.queue import Claim
from queue_eval.ports.store import Store
from queue_eval.worker.execution import Execution

RECORD_WITHIN_S = 3.0  # for what a case spent whose execution ends early


class Records:
    """The records of one worker. What an execution spent is stored once, whatever ends it."""

    def __init__(self, store: Store, *, run_id: str, worker: str, now: Now) -> None:
        self._store = store
        self._run_id = run_id
        self._worker = worker
        self._now = now

    def begin(self, claim: Claim) -> Execution:
        return Execution(claim=claim, case=None, meter=CaseMeter(self._now), started_at=self._now())

    async def payload(self, claim: Claim) -> bytes | None:
        return claim.payload or await self._store.get(objects.payload(claim.case_id))

    async def is_scored(self, execution: Execution) -> bool:
        """Return whether the case has an accepted result. Keeps the scores of results that were opened again."""
        case_id = execution.claim.case_id
        while record := Record.result(
            await self._store.get(objects.result(case_id, execution.result_number)), of=case_id
        ):
            if await self._store.get(objects.revocation(case_id, record.execution)) is None:
                return True
            execution.kept = tuple(m for m in record.metrics if m.score is not None)
            execution.result_number += 1
        return False

    async def kept_scores(self, execution: Execution) -> tuple[MetricResult, ...]:
        """Return scores of earlier executions of the case, which need not be asked for again."""
        case_id = execution.claim.case_id
        names = [name async for name in self._store.names(objects.executions_of(case_id))]
        kept: dict[str, MetricResult] = {}
        for stored in await self._store.get_many(names):
            if record := Record.whole(stored, of=case_id):
                kept |= {m.name: m for m in record.metrics if m.score is not None}
        # what stood in an accepted result stands in the next
        return tuple((kept | {m.name: m for m in execution.kept}).values())

    async def store_result(self, execution: Execution, results: tuple[MetricResult, ...]) -> tuple[MetricResult, ...]:
        """Store the accepted result; return the metrics in it, those of earlier executions included.

        Where another execution's result is there already, that one stands, and what this one spent is stored beside it.
        """
        record = self._record(execution, Ending.SCORED, (*_paid(execution.kept), *results), None)
        name = objects.result(record.case_id, execution.result_number)
        if not await self._create(execution, name, record) and not Record.result(
            await self._store.get(name), of=record.case_id
        ):
            # what stands there is torn, as a crash on a volume without hard links leaves it: it counts as absent
            await self._store.put(name, record.to_json())
            execution.recorded = True
        if not execution.recorded:
            await self.note(execution, Ending.SUPERSEDED, results, "another execution's result was stored first")
        return record.metrics

    async def store_dead_letter(self, execution: Execution, results: tuple[MetricResult, ...], reason: str) -> str:
        """Store why the case is dead; return the object's name."""
        record = self._record(execution, Ending.DEAD, (*_paid(execution.kept), *results), reason)
        name = objects.execution(record.case_id, record.execution, Ending.DEAD)
        await self._create(execution, name, record)
        execution.recorded = True  # by this write or an earlier one: the name is this execution's own
        return name

    async def revoke(self, execution: Execution) -> None:
        """Another execution holds the case. Should Redis lose the run now, this dead letter must not end the case."""
        claim = execution.claim
        name = objects.revocation(claim.case_id, claim.execution)
        await self._store.create(name, b'{"reason":"another execution held it"}')

    async def note(self, execution: Execution, ending: Ending, results: tuple[MetricResult, ...], reason: str) -> None:
        """Store what an execution without an accepted result has spent, once: without a record it counts as a crash."""
        record = self._record(execution, ending, results, reason)
        if execution.recorded:
            return
        await self._create(execution, objects.execution(record.case_id, record.execution, ending), record)
        execution.recorded = True

    async def _create(self, execution: Execution, name: str, record: Record) -> bool:
        """Create the object; False where it is there already.

        A cancellation waits for the write, so that `recorded` is right.
        """
        writing = asyncio.ensure_future(self._store.create(name, record.to_json()))
        try:
            execution.recorded = await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait({writing}, timeout=RECORD_WITHIN_S)
            landed = writing.done() and not writing.cancelled() and not writing.exception()
            execution.recorded = landed and writing.result()
            writing.cancel()
            raise
        return execution.recorded

    def _record(
        self, execution: Execution, ending: Ending, metrics: tuple[MetricResult, ...], reason: str | None
    ) -> Record:
        return execution.record(ending, metrics, reason, run_id=self._run_id, worker=self._worker, ended_at=self._now())


def _paid(kept: tuple[MetricResult, ...]) -> tuple[MetricResult, ...]:
    """Return scores of earlier executions, whose calls are in those executions' records."""
    return tuple(m.model_copy(update={"usage": Usage()}) for m in kept)
