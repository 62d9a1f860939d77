"""DeepEval's metrics score here what they score in its own runner, or are refused before a run begins."""

import inspect
from pathlib import Path
from typing import Any

import deepeval.metrics
import pytest
from deepeval.metrics import BaseConversationalMetric, BaseMetric

from loadtest.parity.compared import compared
from loadtest.parity.metrics import CONVERSATIONAL, NOT_SERVED, SINGLE, table
from queue_eval.core.settings.metric import MetricSettings
from queue_eval.wiring.judging import metric_problems
from testkit.measured import ROOT

BASES = (BaseMetric, BaseConversationalMetric)


def test_of_every_metric_class_it_is_documented_how_it_is_served() -> None:
    classes = {
        name
        for name, found in vars(deepeval.metrics).items()
        if inspect.isclass(found) and issubclass(found, BASES) and found not in BASES
    }
    shown = [*SINGLE, *CONVERSATIONAL, *NOT_SERVED]
    assert sorted(shown) == sorted(classes)
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text().splitlines()
    assert [line for line in page if line.startswith("|")] == table()


def test_scores_reasons_and_verdicts_are_those_of_deepevals_own_runner(tmp_path: Path) -> None:
    outcome = compared(tmp_path, 3)
    assert outcome.keys() == {*SINGLE, *CONVERSATIONAL}
    assert {metric: found for metric, found in outcome.items() if found} == {}


@pytest.mark.parametrize("name", NOT_SERVED)
def test_what_is_not_served_is_refused_before_the_run(name: str) -> None:
    needed: dict[str, dict[str, Any]] = {
        "DAGMetric": {"dag": {}},
        "ConversationalDAGMetric": {"dag": {}},
        "JsonCorrectnessMetric": {"expected_schema": {}},
        "JevEval": {"questions": ["Is it polite?"]},
        "ConversationalJevEval": {"questions": ["Is it polite?"]},
    }
    metric = MetricSettings.model_validate({"type": name, "name": name, "threshold": 0.5, **needed.get(name, {})})
    assert len(list(metric_problems({0: metric}))) == 1
