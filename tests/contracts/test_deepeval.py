"""What we rely on of DeepEval, so that an upgrade that changes it is noticed here first."""

import json
from pathlib import Path
from typing import Literal

import pytest

from queue_eval.core.case import Case
from queue_eval.core.ending import Ending
from queue_eval.core.gate import GateRules, judge_gate
from queue_eval.core.manifest import DatasetFacts, Manifest
from queue_eval.core.metric_spec import MetricSpec
from queue_eval.core.record import MetricResult, Record
from queue_eval.core.report import build_report
from queue_eval.core.summary import Tally
from queue_eval.core.usage import Usage
from queue_eval.dataset.bounds import Bounds
from queue_eval.dataset.reader import CaseFile
from queue_eval.judge.metrics import metric_class, prompts_sha256, required_fields
from queue_eval.judge.test_cases import test_case as built
from queue_eval.report.testrun import DeepEvalTestRun

SPEC = MetricSpec(type="FaithfulnessMetric", name="Faithfulness", threshold=0.5, parameters={})


def test_deepeval_loads_the_test_run_that_we_write(tmp_path: Path) -> None:
    from deepeval.test_run.test_run import TestRun

    single = Case(
        case_id="a", kind="single", place="c:1", fields={"input": "q", "actual_output": "a", "retrieval_context": ["c"]}
    )
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    talk = Case(case_id="b", kind="conversational", place="c:2", fields={"turns": turns, "scenario": "s"})
    good = MetricResult(
        name="Faithfulness", threshold=0.5, score=0.9, passed=True, reason="fine", usage=Usage(input_tokens=5)
    )
    bad = MetricResult(name="Faithfulness", threshold=0.5, error="broke")
    tally = Tally({"Faithfulness": 0.5})
    writer = DeepEvalTestRun(tmp_path, "judge-small", None)
    for case, metric in ((single, good), (talk, bad)):
        record = _record(case.case_id, metric)
        tally.add_outcome(record)
        writer.add(case, record)
    gate = judge_gate(GateRules(metrics={}), {}, cases=2, scored=2, dead=0)
    body = json.loads(writer.finish(build_report(_manifest(), tally, gate)).read_text())
    loaded = TestRun(**body)
    assert [c.name for c in loaded.test_cases] == ["c:1"]
    assert loaded.test_cases[0].metrics_data[0].score == 0.9
    assert loaded.conversational_test_cases[0].turns[1].content == "hello"
    assert (loaded.test_passed, loaded.test_failed) == (1, 1)
    assert loaded.metrics_scores[0].scores == [0.9]
    assert loaded.metrics_scores[0].errors == 1


def test_required_fields_are_read_from_the_metric() -> None:
    assert required_fields(SPEC) == ("input", "actual_output", "retrieval_context")
    geval = MetricSpec(
        type="GEval", name="C", threshold=0.5, parameters={"evaluation_params": ["input", "expected_output"]}
    )
    assert required_fields(geval) == ("input", "expected_output")


def test_geval_still_words_its_steps_by_the_method_that_the_producer_calls() -> None:
    import inspect

    for name in ("GEval", "ConversationalGEval"):
        assert inspect.iscoroutinefunction(inspect.unwrap(metric_class(name)._a_generate_evaluation_steps))


def test_prompt_templates_lie_where_their_hash_is_taken() -> None:
    empty = prompts_sha256([MetricSpec(type="NoSuchMetric", name="x", threshold=0.5, parameters={})])
    assert prompts_sha256([SPEC]) != empty


@pytest.mark.parametrize(
    "name",
    ["DEEPEVAL_TELEMETRY_OPT_OUT", "DEEPEVAL_DISABLE_DOTENV", "DEEPEVAL_DISABLE_TIMEOUTS", "DEEPEVAL_CACHE_FOLDER"],
)
def test_its_environment_is_set_before_it_is_imported(name: str) -> None:
    import os

    import queue_eval.judge  # noqa: F401 - sets it

    assert os.environ[name]


def _record(case_id: str, metric: MetricResult) -> Record:
    return Record(
        run_id="r", case_id=case_id, ending=Ending.SCORED, execution="e-1", delivery=1, worker="w", started_at=1.0, ended_at=2.0, metrics=(metric,)
    )  # fmt: skip


def _manifest() -> Manifest:
    facts = DatasetFacts(source="c.jsonl", sha256="0", cases=2, duplicates=0, chunks=1, selection="")
    settings = {"judge": {"type": "openai", "model": "m"}, "gate": {"mode": "block"}, "metrics": [{"type": "F"}]}
    return Manifest(
        run_id="r", identity="i", created_at=0.0, settings=settings, dataset=facts, metric_prompts_sha256="", commit_sha=None, labels={}, versions={}
    )  # fmt: skip


@pytest.mark.parametrize("file_type", ["json", "jsonl", "csv"])
def test_what_deepeval_saves_is_read_back_equal(tmp_path: Path, file_type: Literal["json", "jsonl", "csv"]) -> None:
    from deepeval.dataset import EvaluationDataset
    from deepeval.test_case import LLMTestCase, RetrievedContextData, ToolCall

    tools = [ToolCall(name="calc", input_parameters={"q": "2"}, output=4), ToolCall(name="search", reasoning="why not")]
    saved = [
        LLMTestCase(
            input='one, "two"\nthree',
            actual_output="a",
            expected_output="e",
            context=["c1", "c2"],
            retrieval_context=["plain", RetrievedContextData(context="2+2=4", source="book")],
            tools_called=tools,
            expected_tools=tools[:1],
            metadata={"m": [1, {"n": None}]},
        ),
        LLMTestCase(input="q2", actual_output="a2"),
    ]
    dataset = EvaluationDataset()
    for case in saved:
        dataset.add_test_case(case)
    dataset.save_as(file_type, str(tmp_path), file_name="saved", include_test_cases=True)
    read = [built(case) for case in CaseFile(str(tmp_path / f"saved.{file_type}"), Bounds())]
    names = ("input", "actual_output", "expected_output", "context", "retrieval_context", "tools_called", "expected_tools", "metadata")  # fmt: skip
    assert [[getattr(case, name) for name in names] for case in read] == [
        [getattr(case, name) for name in names] for case in saved
    ]
