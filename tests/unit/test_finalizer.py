"""I14: the finalizer may die anywhere and be run again, or twice at once; the bytes are the same."""

import asyncio
import gzip
import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis

from queue_eval.core import objects
from queue_eval.core.case import Case
from queue_eval.core.ending import Ending
from queue_eval.core.errors import DataError, ManifestError, UnavailableError
from queue_eval.core.gate import Verdict
from queue_eval.core.manifest import DatasetFacts, Manifest
from queue_eval.core.record import MetricResult, Record
from queue_eval.core.report import Report
from queue_eval.core.run import RunState
from queue_eval.core.usage import Usage
from queue_eval.finalizer.finalizer import Finalizer
from queue_eval.producer.history import History
from queue_eval.report.writers import all_writers
from queue_eval.runs.finish import finish_when_over
from queue_eval.runs.run import Run
from testkit.fakes.memory_queue import MemoryRun, MemorySteering
from testkit.fakes.memory_store import MemoryStore

CASES = [
    Case(case_id=f"c{n}", kind="single", fields={"input": f"q{n}", "actual_output": "a"}, place=f"c:{n}")
    for n in range(7)
]
MANIFEST = Manifest(
    run_id="r",
    identity="i",
    created_at=1.0,
    settings={
        "metrics": [{"type": "F", "name": "F", "threshold": 0.5}],
        "judge": {"type": "lexical"},
        "gate": {"mode": "block", "max_error_rate": 1.0, "min_coverage": 0.0},
        "limits": {},
        "retry": {},
        "workers": {},
    },
    dataset=DatasetFacts(source="c", selection="all", cases=7, duplicates=0, chunks=1, sha256="s"),
    metric_prompts_sha256="p",
    commit_sha=None,
    labels={},
    versions={},
)


class Died(BaseException):
    """No handler may catch it."""


class Deadly(MemoryStore):
    """Dies at the Nth write."""

    def __init__(self, dies_at: int | None = None) -> None:
        super().__init__()
        self.writes = itertools.count(1)
        self.dies_at = dies_at

    async def put(self, name: str, source: bytes | Path) -> None:
        if next(self.writes) == self.dies_at:
            raise Died
        await super().put(name, source)
        await asyncio.sleep(0)


def scored(case: Case, number: int, ending: Ending = Ending.SCORED) -> Record:
    metrics = (MetricResult(name="F", threshold=0.5, score=number / 7, passed=number > 3, usage=Usage(judge_calls=1)),)
    return Record(
        run_id="r", case_id=case.case_id, ending=ending, execution="e-1", delivery=1, worker="w", started_at=number, ended_at=number + 1.0,
        busy_s=1.0, metrics=metrics, usage=Usage(judge_calls=1), reason="dead" if ending is Ending.DEAD else None,
    )  # fmt: skip


async def finished_run(dies_at: int | None = None) -> Deadly:
    store = Deadly(dies_at)
    await store.create(
        objects.chunk(MANIFEST.dataset.sha256, 0), gzip.compress(b"\n".join(case.to_json() for case in CASES), mtime=0)
    )
    for number, case in enumerate(CASES[:5]):
        await store.create(objects.result(case.case_id), scored(case, number).to_json())
    dead = scored(CASES[5], 5, Ending.DEAD)
    await store.create(objects.execution("c5", "e-1", Ending.DEAD), dead.to_json())
    return store


async def finalize(store: MemoryStore) -> Report:
    return await Finalizer(store, writers=lambda folder: all_writers(folder, MANIFEST)).finalize(MANIFEST)


async def expected() -> dict[str, bytes]:
    store = await finished_run()
    await finalize(store)
    return store.objects


# who dies closes no files
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("dies_at", range(1, 9))
async def test_i14_it_may_die_at_any_write_and_be_run_again(dies_at: int) -> None:
    store = await finished_run(dies_at)
    with pytest.raises(Died):
        await finalize(store)
    assert objects.REPORT not in store.objects, "whoever sees the report finds the rest"
    await finalize(store)
    assert store.objects == await expected()


async def test_i14_two_at_once_write_the_same(tmp_path: Path) -> None:
    store = await finished_run()
    await asyncio.gather(finalize(store), finalize(store))
    assert store.objects == await expected()


async def test_i14_what_became_known_since_replaces_the_report() -> None:
    store = await finished_run()
    await finalize(store)
    before = store.objects[objects.REPORT]
    await store.create(objects.result("c6"), scored(CASES[6], 6).to_json())
    await finalize(store)
    assert store.objects[objects.REPORT] != before


async def test_i05_what_belongs_to_no_case_is_counted() -> None:
    store = await finished_run()
    overhead = scored(CASES[0], 0, Ending.OVERHEAD).model_copy(update={"case_id": "", "usage": Usage(judge_calls=2)})
    await store.create(objects.execution("_producer", "preflight-1", Ending.OVERHEAD), overhead.to_json())
    report = await finalize(store)
    assert report.accounting.judge_calls_overhead == 2
    assert report.accounting.judge_calls == 5 + 1 + 2


@pytest.mark.parametrize("what", ["another case's", "no score's"])
async def test_i07_what_stands_under_a_results_name_and_is_none_of_it_counts_as_absent(what: str) -> None:
    store = await finished_run()
    without = await finalize(await finished_run())
    record = scored(CASES[0], 9) if what == "another case's" else scored(CASES[6], 6, Ending.RETRIED)
    await store.create(objects.result("c6"), record.to_json())
    report = await finalize(store)
    assert report == without
    assert (report.accounting.scored, report.accounting.missing) == (5, 1)
    assert report.verdict == Verdict.INCONCLUSIVE


async def test_a_letter_that_is_void_is_no_outcome_and_still_a_cost() -> None:
    store = await finished_run()
    spent = Usage(judge_calls=3, input_tokens=5)
    dead = scored(CASES[6], 6, Ending.DEAD).model_copy(update={"usage": spent})
    await store.create(objects.execution("c6", "e-1", Ending.DEAD), dead.to_json())
    await store.create(objects.revocation("c6", "e-1"), b"{}")
    report = await finalize(store)
    accounting = report.accounting
    assert (accounting.scored, accounting.dead, accounting.missing) == (5, 1, 1)
    assert report.verdict == Verdict.INCONCLUSIVE
    before = await finalize(await finished_run())
    assert accounting.judge_calls == before.accounting.judge_calls + 3


async def test_a_result_that_was_opened_again_is_no_outcome_and_still_a_cost() -> None:
    """c0 had an error, was retried, and was retried once more; of c1 the retry has not ended."""
    store = await finished_run()
    before = await finalize(await finished_run())
    again = scored(CASES[0], 0).model_copy(update={"execution": "again", "delivery": 2, "usage": Usage(judge_calls=20)})
    third = again.model_copy(
        update={"execution": "third", "delivery": 3, "usage": Usage(judge_calls=300), "busy_s": 9.0}
    )
    for number, record in ((2, again), (3, third)):
        await store.create(objects.result("c0", number), record.to_json())
    for case_id, execution in (
        ("c0", scored(CASES[0], 0).execution),
        ("c0", "again"),
        ("c1", scored(CASES[1], 1).execution),
    ):
        await store.create(objects.revocation(case_id, execution), b"{}")
    report = await finalize(store)
    accounting = report.accounting
    assert (accounting.scored, accounting.dead, accounting.missing) == (4, 1, 2)
    assert report.verdict == Verdict.INCONCLUSIVE
    assert accounting.judge_calls == before.accounting.judge_calls + 320
    assert accounting.executions == before.accounting.executions + 2
    assert json.loads(store.objects[objects.DURATIONS])["c0"] == 9.0
    history = await History.of(store)
    assert (history.scored, history.reopened) == ({"c0", "c2", "c3", "c4"}, {"c1"})
    assert (history.executions["c0"], history.executions["c1"]) == (2, 1)


@pytest.mark.parametrize(
    "name",
    [
        "executions/",
        "executions/notes.txt",
        "executions/a/b.dead",
        "executions/a.b.dead.json",
        "executions/a/b.c.d.json",
    ],
)
async def test_what_others_left_among_the_executions_hinders_none(name: str) -> None:
    assert objects.dead_letter(name) is None
    store = await finished_run()
    await store.create(name, b"notes")
    await finalize(store)
    assert (await History.of(store)).dead == 1


@pytest.mark.parametrize(
    "metrics",
    [
        None,
        "AnswerRelevancyMetric",
        [],
        {"a": 1},
        [7],
        [None],
        [["GEval"]],
        [{"name": "GEval"}],
        [{"type": "GEval", "name": 1}],
    ],
)
def test_a_manifest_whose_metrics_another_hand_has_changed_is_no_manifest(metrics: Any) -> None:
    body = json.loads(MANIFEST.to_json())
    body["settings"]["metrics"] = metrics
    with pytest.raises(ManifestError, match=r"run 'r': manifest\.json cannot be read \(settings\.metrics"):
        Manifest.from_json(json.dumps(body).encode(), run_id="r")
    assert Manifest.from_json(MANIFEST.to_json(), run_id="r") == MANIFEST


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"7", b"\xff", b"[" * 100_000, b'{"version": 1}'])
def test_what_is_no_manifest_is_reported(data: bytes) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.json cannot be read"):
        Manifest.from_json(data, run_id="r")


def test_a_manifest_of_another_run_is_none() -> None:
    """Its name is shown in commands to paste."""
    body = json.loads(MANIFEST.to_json()) | {"run_id": "r; rm -rf ~"}
    with pytest.raises(ManifestError, match="it is of a run 'r; rm -rf ~'"):
        Manifest.from_json(json.dumps(body).encode(), run_id="r")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its half-written files
async def test_a_result_with_a_metric_that_the_manifest_does_not_name_is_reported() -> None:
    store = await finished_run()
    (spec,) = MANIFEST.settings.metrics
    renamed = MANIFEST.settings.model_copy(update={"metrics": (spec.model_copy(update={"name": "Other"}),)})
    manifest = MANIFEST.model_copy(update={"settings": renamed})
    with pytest.raises(DataError, match=r"metric 'F', which manifest\.json does not name"):
        await Finalizer(store, writers=lambda folder: all_writers(folder, manifest)).finalize(manifest)


async def test_a_torn_result_is_no_result_when_a_run_is_resumed() -> None:
    store = await finished_run()
    assert (await History.of(store)).scored == {f"c{n}" for n in range(5)}
    store.objects[objects.result("c0")] = store.objects[objects.result("c0")][:40]
    assert (await History.of(store)).scored == {f"c{n}" for n in range(1, 5)}


async def test_a_verdict_that_stands_needs_no_redis() -> None:
    class Away(MemorySteering):
        async def end(self, state: RunState) -> RunState:
            raise UnavailableError("redis cannot be reached")

    run = MemoryRun(now=lambda: 0.0, manifest="m")
    run.state = RunState.DRAINED
    queue: Any = SimpleNamespace(steering=Away(run), redis=Redis(unix_socket_path="never-here"))
    finished = Run(manifest=MANIFEST, location="runs", store=await finished_run(), queue=queue)
    assert (await finish_when_over(finished, timeout_s=None)).accounting.scored == 5
