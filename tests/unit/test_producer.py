"""I9: what was enqueued under a run's id is one set of cases, whatever became of enqueues before it or beside it."""

import asyncio
from collections.abc import Iterator

import pytest

from queue_eval.core import objects
from queue_eval.core.case import Case, CaseIdentity, unpacked_chunk
from queue_eval.core.errors import RunConflictError
from queue_eval.core.manifest import Manifest
from queue_eval.core.meter import CaseMeter
from queue_eval.core.settings.metric import MetricSettings
from queue_eval.core.settings.run import RunSettings
from queue_eval.producer.producer import CHUNK_CASES, Inputs, Produced, Producer, Resolved
from testkit.fakes.memory_queue import MemoryEnqueueing, MemoryRun
from testkit.fakes.memory_store import MemoryStore

MANY = CHUNK_CASES + 2  # two chunks


class Died(BaseException):
    """No handler may catch it."""


EXACT = MetricSettings(type="ExactMatchMetric", name=None, threshold=0.5)


class Deadly(MemoryStore):
    """The process dies after some writes."""

    def __init__(self) -> None:
        super().__init__()
        self.writes_left = 10**9

    async def create(self, name: str, data: bytes) -> bool:
        if not self.writes_left:
            raise Died
        self.writes_left -= 1
        await asyncio.sleep(0)  # another may be faster
        return await super().create(name, data)


def cases(answer: str, count: int = MANY) -> Iterator[Case]:
    identity = CaseIdentity()
    for n in range(count):
        fields = {"input": f"q{n}", "actual_output": answer}
        yield Case(case_id=identity.of("single", fields), kind="single", fields=fields, place=f"c:{n}")


def inputs() -> Inputs:
    return Inputs(
        run_id="r",
        settings=RunSettings.model_validate({"metrics": [EXACT], "judge": {"type": "lexical"}}),
        source="c",
        selection="",
        metric_prompts_sha256="p",
        commit_sha=None,
        labels={},
        versions={},
    )


async def resolved(_meter: CaseMeter) -> Resolved:
    return Resolved(metrics=(EXACT,), served_model=None)


async def enqueued(store: MemoryStore, run: MemoryRun, answer: str, count: int = MANY) -> Produced:
    producer = Producer(
        store=store, queue=MemoryEnqueueing(run), missing_fields=lambda _: (), earlier_busy_s={}, now=lambda: 0.0
    )
    return await producer.produce(cases(answer, count), inputs(), lambda: 0, resolved)


async def frozen_answers(store: MemoryStore) -> set[str]:
    data = await store.get(objects.MANIFEST)
    assert data
    facts = Manifest.from_json(data, run_id="r").dataset
    answers, count = set(), 0
    for index in range(facts.chunks):
        name = objects.chunk(facts.sha256, index)
        for case in unpacked_chunk(name, await store.get(name) or b""):
            answers.add(case.fields["actual_output"])
            count += 1
    assert count == facts.cases
    return answers


# the two chunks, then the manifest
@pytest.mark.parametrize("writes", range(3))
async def test_i09_an_enqueue_that_died_leaves_nothing_in_that_of_a_corrected_file(writes: int) -> None:
    store, run = Deadly(), MemoryRun(now=lambda: 0.0)
    store.writes_left = writes
    with pytest.raises(Died):
        await enqueued(store, run, "wrong")
    store.writes_left = 10**9
    produced = await enqueued(store, run, "right")
    assert produced.enqueued == MANY
    assert await frozen_answers(store) == {"right"}
    assert {job.entry.case_id for job in run.jobs.values()} == {case.case_id for case in cases("right")}


@pytest.mark.parametrize("count", [1, MANY, 3 * MANY])
async def test_i09_of_two_enqueues_at_once_with_other_cases_one_is_refused(count: int) -> None:
    store, run = Deadly(), MemoryRun(now=lambda: 0.0)
    both = await asyncio.gather(
        enqueued(store, run, "one"), enqueued(store, run, "another", count), return_exceptions=True
    )
    refused = [isinstance(each, RunConflictError) for each in both]
    assert sorted(refused) == [False, True], both
    (answer,) = await frozen_answers(store)
    assert answer == ("another" if refused[0] else "one")
    expected = cases("another", count) if refused[0] else cases("one")
    assert {job.entry.case_id for job in run.jobs.values()} == {case.case_id for case in expected}
