"""Metrics and cases as public DeepEval code has them: other signatures, no async, own scales, tools, contexts."""

import asyncio
import inspect
import json
import os
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import deepeval.metrics
import pytest
from deepeval.errors import MissingTestCaseParamsError
from deepeval.evaluate.utils import create_metric_data
from deepeval.metrics import BaseConversationalMetric, BaseMetric
from deepeval.models import DeepEvalBaseLLM
from deepeval.test_case import LLMTestCase, RetrievedContextData, ToolCall

from queue_eval.core.case import Case, CaseKind
from queue_eval.core.meter import CaseMeter
from queue_eval.core.metric_spec import MetricSpec
from queue_eval.dataset.bounds import Bounds
from queue_eval.dataset.reader import CaseFile
from queue_eval.judge.bridge import BridgeModel
from queue_eval.judge.lexical import LexicalJudge
from queue_eval.judge.metrics import faults, problems
from queue_eval.judge.resolution import resolved_threshold
from queue_eval.judge.test_cases import test_case as made
from queue_eval.ports.judge import Answer
from testkit.fakes.clock import FakeClock
from testkit.fakes.scripted_judge import ScriptedJudge
from tests.unit.test_judge import CASE, calls, scorer

ANSWER = Answer(text="4", input_tokens=3, output_tokens=2)


class Own(BaseMetric):  # type: ignore[misc]  # deepeval has no type information
    """What every metric of one's own has."""

    def __init__(self, threshold: float = 0.5, model: Any = None) -> None:
        self.threshold, self.model = threshold, model
        self.score: float | None = None
        self.reason = None

    def is_successful(self) -> bool:
        return self.score is not None and self.score >= self.threshold


class Commonest(Own):
    async def a_measure(self, test_case: LLMTestCase) -> float:
        self.score = 1.0
        return self.score


class SyncOnly(Own):
    def measure(self, test_case: LLMTestCase) -> float:
        self.score = float(self.model.generate("how much?")) / 5
        return self.score


class SyncWithinAsync(Own):
    async def a_measure(self, test_case: LLMTestCase, *_: Any, **__: Any) -> float:
        await asyncio.sleep(0)
        self.score = float(self.model.generate("how much?")) / 5
        return self.score


class OwnScale(Own):
    async def a_measure(self, test_case: LLMTestCase) -> float:
        self.score = 3.5
        return self.score

    def is_successful(self) -> bool:
        return self.score is not None and self.score > 3


class Odd(Own):
    """Its result is whatever `found` is at the moment."""

    found: dict[str, Any]

    def measure(self, test_case: LLMTestCase) -> float:
        for name, value in self.found.items():
            setattr(self, name, value)
        return 0.0

    def is_successful(self) -> bool:
        return True


class OfTen(Own):
    def __init__(self, threshold: float = 7) -> None:
        super().__init__(threshold)

    def measure(self, test_case: LLMTestCase) -> float:
        self.score = 6.0
        return self.score


class Repeats(Own):
    async def a_measure(self, test_case: LLMTestCase) -> float:
        await self.model.a_generate(f"the statement was: {MARK}")
        self.score = 1.0
        return self.score


class RaisesTypeError(Own):
    calls = 0

    async def a_measure(self, test_case: LLMTestCase) -> float:
        type(self).calls += 1
        raise TypeError("of its own")


class Validates(Commonest):
    """Its exception repeats what it was raised for, as pydantic's do."""

    async def a_measure(self, test_case: LLMTestCase) -> float:
        LLMTestCase(input=["the secret prompt", test_case.input], actual_output="a")
        return 1.0


async def test_an_exception_that_repeats_a_prompt_is_reported_without_it() -> None:
    (result,), _ = await scored(Validates)
    assert "input" in str(result.error)
    assert "secret" not in str(result.error)


def spec(kind: type[BaseMetric], threshold: float | None = 0.5) -> MetricSpec:
    return MetricSpec(type=f"{__name__}:{kind.__name__}", name=kind.__name__, threshold=threshold, parameters={})


async def scored(*kinds: type[BaseMetric], judge: Any = None, times: int = 1) -> tuple[list[Any], CaseMeter]:
    meter, scoring = CaseMeter(lambda: 0.0), scorer(judge or ScriptedJudge(ANSWER), *map(spec, kinds))
    for _ in range(times):
        found = await scoring.score(CASE, skip=frozenset(), meter=meter)
    return list(found), meter


async def test_an_a_measure_without_deepevals_own_options_is_called_without_them() -> None:
    (result,), _ = await scored(Commonest)
    assert (result.score, result.passed, result.error) == (1.0, True, None)


async def test_a_metric_that_is_not_asynchronous_runs_in_a_thread_and_its_calls_are_counted() -> None:
    (result,), meter = await scored(SyncOnly)
    assert (result.score, result.error) == (0.8, None)
    assert (meter.usage.judge_calls, meter.usage.output_tokens) == (1, 2)


async def test_a_call_that_is_not_awaited_within_an_asynchronous_metric_works_and_is_counted() -> None:
    (result,), meter = await scored(SyncWithinAsync, times=2)
    assert (result.score, result.error) == (0.8, None)
    assert meter.usage.judge_calls == 2


async def test_many_of_them_at_once_do_not_wait_for_each_other() -> None:
    results, meter = await scored(SyncOnly, SyncWithinAsync, Commonest)
    assert [result.score for result in results] == [0.8, 0.8, 1.0]
    assert meter.usage.judge_calls == 2


async def test_a_scale_of_its_own_counts_with_its_own_word_for_success() -> None:
    (result,), _ = await scored(OwnScale)
    assert (result.score, result.passed, result.error) == (3.5, True, None)


@pytest.mark.parametrize("score", [1, True, "0.8", " 0.8 ", Decimal("0.25"), Fraction(1, 4)])
async def test_a_score_is_the_number_that_deepevals_runner_reads(score: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Odd, "found", {"score": score}, raising=False)
    stock = Odd()
    stock.measure(LLMTestCase(input="q"))
    expected = create_metric_data(stock)
    (result,), _ = await scored(Odd)
    assert (result.score, result.passed, result.error) == (expected.score, expected.success, None)


@pytest.mark.parametrize(
    ("found", "error"),
    [
        ({"score": None}, "the metric gave no number: its score is 'None'"),
        ({"score": "good"}, "the metric gave no number: its score is 'good'"),
        ({"score": None, "skipped": True}, "the metric gave no number: it has skipped the case"),
        ({"score": 0.4, "error": "no table in the answer"}, "no table in the answer"),
    ],
)
async def test_a_metric_without_a_score_gives_its_reason(
    found: dict[str, Any], error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Odd, "found", found, raising=False)
    (result,), _ = await scored(Odd)
    assert (result.score, result.error) == (None, error)


async def test_a_success_that_cannot_be_read_is_an_error_of_the_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OfTen, "is_successful", lambda self: self.verdict)
    (result,), _ = await scored(OfTen)
    assert (result.score, "has no attribute 'verdict'" in str(result.error)) == (None, True)


@pytest.mark.parametrize(("named", "threshold", "passed"), [(None, 7, False), (5.5, 5.5, True)])
async def test_without_a_threshold_the_class_has_its_own(named: float | None, threshold: float, passed: bool) -> None:
    judge_calls, meter = calls(ScriptedJudge(ANSWER), FakeClock()), CaseMeter(lambda: 0.0)
    frozen = resolved_threshold(spec(OfTen, named), judge_calls, model_name="m", meter=meter)
    assert frozen == threshold
    scoring = scorer(ScriptedJudge(ANSWER), spec(OfTen, frozen))
    (result,) = await scoring.score(CASE, skip=frozenset(), meter=meter)
    assert (result.score, result.threshold, result.passed) == (6.0, threshold, passed)


async def test_a_type_error_of_the_metrics_own_is_one_and_is_not_called_twice() -> None:
    RaisesTypeError.calls = 0
    (result,), _ = await scored(RaisesTypeError)
    assert (result.error, RaisesTypeError.calls) == ("TypeError: of its own", 1)


@pytest.mark.parametrize("mode", ["hybrid", "system_one"])
def test_no_judge_of_deepevals_own_decides_past_the_limiter(mode: str) -> None:
    spec = MetricSpec(type="FaithfulnessMetric", name="F", threshold=0.5, parameters={"eval_mode": mode})
    model = BridgeModel(calls(LexicalJudge(), FakeClock()), CaseMeter(lambda: 0.0).metric(), "m")
    ((_, message),) = problems([spec], model)
    assert "which no limit binds and no report counts" in message
    # nor by the environment of a worker
    code = "import queue_eval.judge.metrics; from deepeval.config.eval_mode import resolve_eval_mode as r; print(r())"
    environment = {**os.environ, "DEEPEVAL_EVAL_MODE": mode}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "llm\n"


# --- what validate prints ---------------------------------------------------------------------------------------------


def refusal(spec: MetricSpec, fields: dict[str, Any]) -> str | None:
    """Ours, before the run: of the metric, or of the case."""
    model = BridgeModel(calls(LexicalJudge(), FakeClock()), CaseMeter(lambda: 0.0).metric(), "m")
    for _, message in problems([spec], model):
        return message
    kind: CaseKind = "conversational" if "turns" in fields else "single"
    return next(iter(faults([spec], Case(case_id="a", kind=kind, place="c:1", fields=fields))), None)


class Mute(DeepEvalBaseLLM):  # type: ignore[misc]  # deepeval has no type information
    def load_model(self, *_: Any, **__: Any) -> None: ...
    def generate(self, *_: Any, **__: Any) -> str:
        raise ConnectionError

    async def a_generate(self, *_: Any, **__: Any) -> str:
        raise ConnectionError

    def get_model_name(self, *_: Any, **__: Any) -> str:
        return "mute"


def needs_only_a_model(metric: Any) -> bool:
    if not (inspect.isclass(metric) and issubclass(metric, BaseMetric | BaseConversationalMetric)):
        return False
    takes = inspect.signature(metric).parameters
    needed = [p for p in takes.values() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    return "model" in takes and not needed


WITHOUT_ARGUMENTS = sorted(name for name, metric in vars(deepeval.metrics).items() if needs_only_a_model(metric))
BARE = {"input": "q", "actual_output": "a"}
SCENARIO = {"type": "ConversationalGEval", "criteria": "true?", "evaluation_params": ["content", "scenario"]}
TALK = {"turns": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}


def test_the_metrics_that_need_only_a_model_are_most_of_deepevals() -> None:
    assert len(WITHOUT_ARGUMENTS) >= 30
    assert {"FaithfulnessMetric", "RoleAdherenceMetric", "TaskCompletionMetric"} <= {*WITHOUT_ARGUMENTS}


@pytest.mark.filterwarnings("ignore:.*scores in the same direction:DeprecationWarning")
@pytest.mark.parametrize("name", WITHOUT_ARGUMENTS)
async def test_a_bare_case_is_refused_before_the_run_where_deepeval_refuses_it(name: str) -> None:
    cls = getattr(deepeval.metrics, name)
    fields = TALK if issubclass(cls, BaseConversationalMetric) else BARE
    case = made(Case(case_id="a", kind="conversational" if fields is TALK else "single", place="c:1", fields=fields))
    spec = MetricSpec(type=name, name=name, threshold=0.5, parameters={})
    try:
        metric = cls(model=Mute())
        await metric.a_measure(case, _show_indicator=False)
        refused = getattr(metric, "requires_trace", False)  # without one it scores all the same: nothing
    except ConnectionError:  # it asks the judge
        refused = getattr(metric, "requires_trace", False)
    except (MissingTestCaseParamsError, ValueError, IndexError):  # the last: of a case without images
        refused = True
    assert (refusal(spec, fields) is not None) == refused, refusal(spec, fields)


@pytest.mark.parametrize(
    ("spec", "fields", "printed"),
    [
        ({"type": "GEval", "criteria": "true?"}, BARE, "GEval needs evaluation_params"),
        ({"type": "ConversationalGEval", "criteria": "true?"}, TALK, "ConversationalGEval needs evaluation_params"),
        ({"type": "JsonCorrectness", "expected_schema": {"a": 1}}, BARE, "which YAML cannot hold"),
        ({"type": "TaskCompletion"}, BARE, "reads the trace of an agent's run"),
        ({"type": "TextToImage"}, BARE, "scores images"),
        ({"type": "RoleAdherence"}, TALK, "M needs chatbot_role"),
        ({"type": "RoleAdherence"}, TALK | {"chatbot_role": "a clerk"}, None),
        (SCENARIO, TALK, "M needs scenario"),
        ({"type": "GEval", "criteria": "true?", "evaluation_params": ["input"]}, BARE, None),
    ],
)  # fmt: skip
def test_validate_names_what_no_case_could_be_scored_by(
    spec: dict[str, Any], fields: dict[str, Any], printed: str | None
) -> None:
    parameters = {name: value for name, value in spec.items() if name != "type"}
    found = refusal(MetricSpec(type=spec["type"], name="M", threshold=0.5, parameters=parameters), fields)
    assert found == printed if printed is None else printed in (found or "")


# --- tools and contexts ---------------------------------------------------------------------------------------------

TOOLS = [ToolCall(name="calc", input_parameters={"q": "2+2"}, output=4), ToolCall(name="search")]


def read(folder: Path, rows: list[dict[str, Any]]) -> list[Case]:
    path = folder / "cases.json"
    path.write_text(json.dumps(rows))
    return list(CaseFile(str(path), Bounds()))


@pytest.mark.parametrize("by_alias", [True, False])
def test_tools_and_contexts_come_in_as_deepeval_writes_them(tmp_path: Path, by_alias: bool) -> None:
    tools = [tool.model_dump(by_alias=by_alias, mode="json", exclude_none=True) for tool in TOOLS]
    row = {
        "input": "q",
        "actual_output": "a",
        "tools_called": tools,
        "expected_tools": tools[:1],
        "retrieval_context": ["plain", {"context": "2+2=4", "source": "book"}],
    }
    (case,) = read(tmp_path, [row])
    built = made(case)
    assert (built.tools_called, built.expected_tools) == (TOOLS, TOOLS[:1])
    assert built.retrieval_context == ["plain", RetrievedContextData(context="2+2=4", source="book")]


async def test_tool_correctness_is_scored_as_deepeval_scores_it() -> None:
    from deepeval.metrics import ToolCorrectnessMetric

    tools = [tool.model_dump(by_alias=True, mode="json", exclude_none=True) for tool in TOOLS]
    fields = {"input": "q", "actual_output": "a", "tools_called": tools[:1], "expected_tools": tools}
    ours = MetricSpec(type="ToolCorrectnessMetric", name="T", threshold=0.5, parameters={})
    (result,) = await scorer(LexicalJudge(), ours).score(
        Case(case_id="a", kind="single", place="c:1", fields=fields), skip=frozenset(), meter=CaseMeter(lambda: 0.0)
    )
    theirs = ToolCorrectnessMetric(
        threshold=0.5, model=BridgeModel(calls(LexicalJudge(), FakeClock()), CaseMeter(lambda: 0.0).metric(), "m")
    )
    theirs.measure(LLMTestCase(input="q", actual_output="a", tools_called=TOOLS[:1], expected_tools=TOOLS))
    assert (result.score, result.error) == (theirs.score, None)


@pytest.mark.parametrize(
    "context",
    [{"context": "Graz is in Austria.", "source": "book"}, "deepeval_source=book,deepeval_context=Graz is in Austria."],
)
async def test_a_context_that_names_its_source_is_scored_by_every_metric(context: Any) -> None:
    fields = {
        "input": "Where is Graz?",
        "actual_output": "Graz is in Austria.",
        "expected_output": "In Austria.",
        "retrieval_context": [context, "x"],
    }
    case = Case(case_id="a", kind="single", place="c:1", fields=fields)
    assert made(case).retrieval_context == [RetrievedContextData(context="Graz is in Austria.", source="book"), "x"]
    specs = [
        MetricSpec(type=f"{name}Metric", name=name, threshold=0.5, parameters={})
        for name in ("Faithfulness", "ContextualPrecision", "ContextualRecall", "ContextualRelevancy")
    ]
    results = await scorer(LexicalJudge(), *specs).score(case, skip=frozenset(), meter=CaseMeter(lambda: 0.0))
    assert [result.error for result in results if "TypeError" in (result.error or "")] == []
    assert results[0].score == 1.0


def test_a_tool_that_is_none_is_an_error_that_names_it() -> None:
    fields = {"input": "q", "actual_output": "a", "tools_called": [{"no": "name"}]}
    case = Case(case_id="a", kind="single", place="c:1", fields=fields)
    assert "DeepEval does not take the case: name" in made(case)


# --- what a case must not make a process open -------------------------------------------------------------------------

MARK = "[DEEPEVAL:IMAGE:file:///proc/self/environ]"


@pytest.mark.parametrize(
    "fields",
    [
        {"input": f"look at {MARK}"},
        {"input": "q", "metadata": {"deep": [{"n": MARK}]}},
        {"input": "q", "metadata": {MARK: 1}},
        {"input": "q", "actual_output": MARK.lower()},
        {"input": "q", "retrieval_context": ["x", MARK]},
        {"input": "q", "tools_called": [{"name": "t", "output": MARK}]},
        {"turns": [{"role": "user", "content": "hi", "audio": {"url": "/dev/zero"}}]},
        {"turns": [{"role": "user", "content": MARK}]},
    ],
)  # fmt: skip
def test_nothing_in_a_case_makes_a_process_open_a_file(tmp_path: Path, fields: dict[str, Any]) -> None:
    from queue_eval.core.errors import DataError

    with pytest.raises(DataError, match="names a file or an address"):
        read(tmp_path, [fields])
    kind: CaseKind = "conversational" if "turns" in fields else "single"
    planted = Case(case_id="a", kind=kind, place="c:1", fields=fields)  # as a Redis user or a store writer could
    assert "which a judge model would open" in made(planted)


async def test_a_mark_that_a_judge_repeats_reaches_no_model() -> None:
    judge = ScriptedJudge(ANSWER)
    await scored(Repeats, judge=judge)
    assert "[DEEPEVAL:" not in judge.prompts[0]
    assert "IMAGE:file:///proc/self/environ]" in judge.prompts[0]
