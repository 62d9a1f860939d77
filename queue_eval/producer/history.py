"""What the store holds of a run's cases, before they are enqueued, or enqueued again where Redis lost them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

from queue_eval.core import objects
from queue_eval.core.record import Record
from queue_eval.ports.store import Store

AT_ONCE = 250


@dataclass(frozen=True, slots=True)
class History:
    scored: set[str]
    lacking: dict[str, str]  # scored cases of which a metric has no score → the execution of their result
    reopened: set[str]  # cases that had a result, and were opened again for the metrics without a score
    dead_letters: dict[str, list[str]]  # case id → the executions that ended it so; revoked dead letters do not count
    executions: Counter[str]  # that left a record and ended no case for good, by case

    @property
    def dead(self) -> int:
        return len(self.dead_letters)

    @classmethod
    async def of(cls, store: Store) -> "History":
        revoked = {name async for name in store.names(objects.REVOKED)}
        scored: set[str] = set()
        lacking: dict[str, str] = {}
        executions: Counter[str] = Counter()
        async for record in _results(store):
            if objects.revocation(record.case_id, record.execution) in revoked:
                executions[record.case_id] += 1
                continue
            scored.add(record.case_id)
            if record.lacks_scores:
                lacking[record.case_id] = record.execution
        reopened = executions.keys() - scored
        dead: dict[str, list[str]] = {}
        async for name in store.names(objects.EXECUTIONS):
            executions[objects.case_of_execution(name)] += 1
            letter = objects.dead_letter(name)
            if letter and letter[0] not in scored and objects.revocation(*letter) not in revoked:
                dead.setdefault(letter[0], []).append(letter[1])
        return cls(scored, lacking, reopened, dead, executions)


async def _results(store: Store) -> AsyncIterator[Record]:
    """Read, not listed: a case whose result is torn would otherwise be missing for ever."""
    names = [name async for name in store.names(objects.RESULTS)]
    for start in range(0, len(names), AT_ONCE):
        batch = names[start : start + AT_ONCE]
        for name, data in zip(batch, await store.get_many(batch), strict=True):
            if record := Record.result(data, of=objects.case_of_result(name)):
                yield record


async def open_again(store: Store) -> None:
    """Revoke each dead letter, and each result of which a metric has no score: they no longer decide about their case.

    Call it before Redis gets the cases, so that what Redis loses afterwards stays open.
    """
    history = await History.of(store)
    names = [
        objects.revocation(case_id, execution)
        for case_id, executions in history.dead_letters.items()
        for execution in executions
    ]
    names += [objects.revocation(case_id, execution) for case_id, execution in history.lacking.items()]
    for start in range(0, len(names), AT_ONCE):
        await asyncio.gather(*(store.create(name, b'{"reason":"retry"}') for name in names[start : start + AT_ONCE]))
