"""What each form of the report holds of twelve cases: some fail, some have errors, one is dead, one is missing."""

import csv
import gzip
import io
import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from queue_eval.core import objects
from queue_eval.core.case import Case, CaseIdentity, CaseKind
from queue_eval.core.ending import Ending
from queue_eval.core.gate import GateResult, Verdict
from queue_eval.core.limiter_stats import Slot
from queue_eval.core.manifest import DatasetFacts, Manifest
from queue_eval.core.record import MetricResult, Record
from queue_eval.core.report import Report, build_report
from queue_eval.core.settings.limits import LimitSettings
from queue_eval.core.summary import Tally
from queue_eval.core.usage import Usage
from queue_eval.finalizer.finalizer import Finalizer
from queue_eval.report.writers import all_writers
from testkit.fakes.memory_store import MemoryStore

LONG = "x" * 50_000
# what became of each case: the scores of two metrics, of which 0.5 is enough; None: an error
SCORES: dict[int, tuple[float | None, float | None]] = {
    0: (0.9, 0.8),
    1: (0.4, 0.9),
    2: (0.3, 0.2),
    3: (None, 0.9),
    4: (None, 0.1),
    5: (None, None),
    6: (0.6, 0.5),
    7: (0.1, 0.9),
    8: (0.5, 0.5),
    9: (0.9, None),
}
DEAD, MISSING = 10, 11


def field(n: int) -> dict[str, Any]:
    fields = {
        "name": "the same name" if n < 2 else f"case {n}",
        "input": f"question {n}",
        "actual_output": f"answer {n}" if n else LONG,
        "expected_output": f"what was right {n}",
        "retrieval_context": [f"a source {n}", {"context": f"one with a name {n}", "source": "page"}],
        "metadata": {"n": n},
    }
    if n == 8:
        return {"turns": [{"role": "user", "content": "hello 8"}, {"role": "assistant", "content": "good day 8"}]}
    return fields


def cases() -> list[Case]:
    identity, found = CaseIdentity(), []
    for n in range(12):
        fields = field(n)
        kind: CaseKind = "conversational" if "turns" in fields else "single"
        found.append(
            Case(case_id=identity.of(kind, fields), kind=kind, fields=fields, place=f"data/cases.jsonl:{n + 1}")
        )
    return found


def record(case: Case, n: int) -> Record:
    metrics = tuple(
        MetricResult(name=name, threshold=0.5, score=score, passed=score >= 0.5, reason=f"because {n}")
        if score is not None
        else MetricResult(name=name, threshold=0.5, error=f"no answer {n}")
        for name, score in zip(("A", "B"), SCORES.get(n, (None, None)), strict=True)
    )
    ending = Ending.DEAD if n == DEAD else Ending.SCORED
    return Record(
        run_id="r",
        case_id=case.case_id,
        ending=ending,
        execution="e-1",
        delivery=1,
        worker="w",
        started_at=n,
        ended_at=n + 1.0,
        metrics=metrics,
        name=case.name,
        place=case.place,
        reason="died" if n == DEAD else None,
    )


async def finished(
    *, missing: bool = True, block: bool = True, **rules: dict[str, float]
) -> tuple[Report, dict[str, bytes]]:
    store, all_cases = MemoryStore(), cases()
    facts = DatasetFacts(source="c", selection="", cases=12, duplicates=0, chunks=1, sha256="s")
    manifest = Manifest(
        run_id="r",
        identity="i",
        created_at=1.0,
        dataset=facts,
        metric_prompts_sha256="p",
        commit_sha=None,
        labels={},
        versions={},
        settings={
            "metrics": [{"type": t, "name": t, "threshold": 0.5} for t in "AB"],
            "judge": {"type": "lexical"},
            "gate": {"mode": "block" if block else "warn", "metrics": rules, "min_coverage": 0.0},
        },
    )
    await store.create(objects.chunk("s", 0), gzip.compress(b"\n".join(case.to_json() for case in all_cases)))
    for n, case in enumerate(all_cases):
        if n == DEAD or (n == MISSING and not missing):
            await store.create(objects.execution(case.case_id, "e-1", Ending.DEAD), record(case, DEAD).to_json())
        elif n != MISSING:
            await store.create(objects.result(case.case_id), record(case, n).to_json())
    report = await Finalizer(store, writers=lambda folder: all_writers(folder, manifest)).finalize(manifest)
    return report, store.objects


async def test_the_page_finds_each_case_by_what_went_wrong_with_it() -> None:
    _, stored = await finished()
    page = stored["report.html"].decode()
    kinds = Counter(kind for row in re.findall(r'data-kind="([^"]+)"', page) for kind in row.split())
    errors = {n for n, scores in SCORES.items() if None in scores} | {DEAD, MISSING}
    below = {n for n, scores in SCORES.items() if any(s is not None and s < 0.5 for s in scores)}
    assert kinds == {"problem": len(errors), "failed": len(below), "passed": 12 - len(errors | below)}


async def test_the_whole_case_is_where_it_is_looked_for() -> None:
    _, stored = await finished()
    page = stored["report.html"].decode()
    for n in range(12):
        shown = (
            ["hello 8", "good day 8"]
            if n == 8
            else [f"question {n}", f"what was right {n}", f"a source {n}", f"one with a name {n}"]
        )
        assert [text for text in shown if text not in page] == []
    assert LONG not in page
    assert "(48,000 more characters in results.jsonl)" in page
    lines = [json.loads(line) for line in stored["results.jsonl"].decode().splitlines()]
    assert [line["fields"] for line in lines] == [field(n) for n in range(12)]
    assert stored["results.csv"].startswith(b"\xef\xbb\xbf"), "a spreadsheet takes it for another encoding without"
    table = list(csv.DictReader(io.StringIO(stored["results.csv"].decode("utf-8-sig"))))
    assert [row["expected_output"] for row in table] == ["" if n == 8 else f"what was right {n}" for n in range(12)]
    assert table[8]["turns"] == "user: hello 8\nassistant: good day 8"


def junit(stored: dict[str, bytes]) -> tuple[ET.Element, dict[str, ET.Element]]:
    root = ET.fromstring(stored["junit.xml"])
    return root, {str(suite.get("name")): suite for suite in root.iter("testsuite")}


@pytest.mark.parametrize(
    ("rules", "missing", "block", "failing", "unsure"),
    [
        ({}, False, True, [], 0),
        ({"A": {"min_mean": 0.3}}, False, True, [], 0),
        ({"A": {"min_mean": 0.99}, "B": {"min_mean": 0.1}}, False, True, ["A mean"], 0),
        ({"A": {"min_mean": 0.99}}, False, False, [], 0),
        ({"A": {"min_mean": 0.1}}, True, True, [], 1),
    ],
)
async def test_junit_fails_where_the_gate_does_and_nowhere_else(
    rules: dict[str, dict[str, float]], missing: bool, block: bool, failing: list[str], unsure: int
) -> None:
    report, stored = await finished(missing=missing, block=block, **rules)
    root, suites = junit(stored)
    failed = [str(test.get("name")) for test in root.iter("testcase") if test.find("failure") is not None]
    assert failed == failing
    assert (root.get("failures"), root.get("errors")) == (str(len(failing)), str(unsure))
    assert sum(1 for _ in root.iter("error")) == unsure
    assert bool(failing or unsure) == (report.exit_code != 0)
    assert int(str(root.get("tests"))) == sum(1 for _ in root.iter("testcase"))
    assert suites.keys() == {"gate", "cases"}


async def test_junit_has_every_case_under_a_name_and_a_file_of_its_own() -> None:
    _, stored = await finished(missing=False)
    _, suites = junit(stored)
    tests = list(suites["cases"])
    assert len({(test.get("classname"), test.get("name")) for test in tests}) == len(tests) == 24
    assert {test.get("file") for test in tests} == {"data/cases.jsonl"}
    assert [test.get("line") for test in tests] == [str(n + 1) for n in range(12) for _ in "AB"]
    notices = [{p.get("name"): p.get("value") for p in test.iter("property")} for test in tests]
    expected = [score for n in range(10) for score in SCORES[n]] + [None] * 4
    assert [float(one["score"]) if one else None for one in notices] == expected  # type: ignore[arg-type]
    assert [one.get("passed") for one in notices] == [
        None if score is None else str(score >= 0.5).lower() for score in expected
    ]
    assert [test.find("skipped") is not None for test in tests] == [score is None for score in expected]


def reported(calls: int, limits: dict[str, Any], slots: tuple[Slot, ...] = ()) -> Report:
    settings = {
        "metrics": [{"type": "ExactMatchMetric"}],
        "judge": {"type": "lexical"},
        "gate": {"mode": "block"},
        "limits": {**LimitSettings().model_dump(), **limits},
    }
    facts = DatasetFacts(source="c", selection="", cases=1, duplicates=0, chunks=1, sha256="s")
    manifest = Manifest(
        run_id="r",
        identity="i",
        created_at=1.0,
        settings=settings,
        dataset=facts,
        metric_prompts_sha256="p",
        commit_sha=None,
        labels={},
        versions={},
    )
    tally = Tally({})
    usage = Usage(judge_calls=calls, input_tokens=100 * calls, output_tokens=10 * calls)
    record = Record(
        run_id="r",
        case_id="c",
        ending=Ending.SCORED,
        execution="e",
        delivery=1,
        worker="w",
        started_at=0,
        ended_at=60,
        busy_s=1.0,
        usage=usage,
    )
    tally.add_outcome(record)
    overhead = record.model_copy(
        update={"ending": Ending.OVERHEAD, "execution": "p", "usage": Usage(judge_calls=10**6, input_tokens=10**9)}
    )
    tally.add_spent(overhead)
    return build_report(manifest, tally, GateResult(Verdict.PASS, (), (), 0), slots)


def test_the_bound_knows_of_the_limits() -> None:
    """A burst at the beginning may save a little. Calls that belong to no case count for nothing."""
    assert reported(240, {}).bound_s == 1.0
    assert 0.95 * 24 <= reported(240, {"requests_per_minute": 600}).bound_s <= 24.6
    assert 0.45 * 48 <= reported(240, {"requests_per_minute": 600, "input_tokens_per_minute": 30_000}).bound_s <= 49
    raised = Slot(
        at=0.0,
        span_s=5.0,
        released=1,
        lanes={},
        refused=0,
        cuts=0,
        paused_s=0,
        factor=1.0,
        used={},
        limits={"requests": 6000.0},
    )
    assert 0.9 * 2.4 <= reported(240, {"requests_per_minute": 600}, (raised,)).bound_s <= 2.5
    lifted = replace(raised, limits={})
    assert reported(240, {"requests_per_minute": 600}, (raised, lifted)).bound_s == 1.0
