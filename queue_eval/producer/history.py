"""What the store tells of a run's cases before they are put into a queue, or again into one that has forgotten them."""

import asyncio
from collections import Counter
from dataclasses import dataclass

from queue_eval.core import objects
from queue_eval.core.record import Record
from queue_eval.ports import Store

AT_ONCE = 250


@dataclass(frozen=True, slots=True)
class History:
    scored: set[str]
    letters: dict[str, list[str]]  # case id → the executions that buried it; a letter that is void does not count
    executions: Counter[str]  # that left a record, by case

    @property
    def dead(self) -> int:
        return len(self.letters)

    @classmethod
    async def of(cls, store: Store) -> "History":
        names = [name async for name in store.names(objects.RESULTS)]
        scored: set[str] = set()
        for start in range(0, len(names), AT_ONCE):
            batch = names[start : start + AT_ONCE]
            stored = await store.get_many(batch)
            # read, not listed: a torn result would otherwise be missing for ever
            results = zip(map(objects.case_of_result, batch), stored, strict=True)
            scored |= {case_id for case_id, data in results if Record.result(data, of=case_id)}
        void = {name async for name in store.names(objects.VOID)}
        letters: dict[str, list[str]] = {}
        executions: Counter[str] = Counter()
        async for name in store.names(objects.EXECUTIONS):
            executions[objects.case_of_execution(name)] += 1
            letter = objects.dead_letter(name)
            if letter and letter[0] not in scored and objects.void(*letter) not in void:
                letters.setdefault(letter[0], []).append(letter[1])
        return cls(scored, letters, executions)


async def void_letters(store: Store) -> None:
    """From now on no dead letter says that its case is dead. Before the queue is told: what it then forgets stays retried."""
    letters = (await History.of(store)).letters
    names = [objects.void(case_id, execution) for case_id, buried_by in letters.items() for execution in buried_by]
    for start in range(0, len(names), AT_ONCE):
        await asyncio.gather(*(store.create(name, b'{"reason":"retry"}') for name in names[start : start + AT_ONCE]))
