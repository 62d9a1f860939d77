"""GEval weighs a score by the probabilities of its token, where the judge returns them: as DeepEval's own runner does."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from testkit.command import queue_eval, report, rows, write_cases, write_eval
from testkit.provider.server import Provider
from testkit.provider.wire import Fault

STEPS = ["Is it polite?"]
GEVAL = [
    {"type": "GEval", "name": "Polite", "evaluation_steps": STEPS, "evaluation_params": ["input", "actual_output"]}
]
# what the judge thinks of each item: a score, and how probable it and others are
THOUGHTS = {
    0: {8: 0.6, 7: 0.3, 6: 0.1},
    1: {3: 0.4, 9: 0.4, 1: 0.2},
    2: {10: 1.0},
    3: {5: 0.5, 4: 0.495, 9: 0.005},  # less than a hundredth counts for nothing
}
# by hand: the mean of the scores, weighed, as a tenth
WEIGHED = {0: 0.75, 1: 0.5, 2: 1.0, 3: (5 * 0.5 + 4 * 0.495) / 0.995 / 10}
PLAIN = {0: 0.8, 1: 0.3, 2: 1.0, 3: 0.5}
KNOWN, UNKNOWN = "gpt-4.1", "judge-small"  # to DeepEval: as a model with logprobs, and not at all


def item_of(body: dict[str, Any]) -> int | None:
    found = re.search(r"item (\d+)\?", str(body))
    return int(found[1]) if found else None


def answer(_n: int, body: dict[str, Any]) -> Fault | None:
    item = item_of(body)
    score = 8 if item is None else max(THOUGHTS[item], key=lambda s: THOUGHTS[item][s])
    return Fault(text=json.dumps({"reason": "because", "score": score})) if "score" in str(body) else None


def choices(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The score's token, with one before it that looks the same and is none."""
    thought = THOUGHTS[item] if (item := item_of(body)) is not None else {8: 1.0}
    top = [{"token": str(s), "logprob": math.log(p)} for s, p in thought.items()]
    top.append({"token": " a", "logprob": math.log(0.2)})
    score = max(thought, key=lambda s: thought[s])
    return [
        {"token": str(score), "logprob": 0.0, "top_logprobs": [{"token": "1", "logprob": 0.0}]},
        {"token": str(score), "logprob": math.log(thought[score]), "top_logprobs": top},
        {"token": "}", "logprob": 0.0, "top_logprobs": []},
    ]


@pytest.fixture
def judge(provider: Provider) -> Provider:
    provider.fault, provider.token_choices = answer, choices
    return provider


def ours(tmp_path: Path, provider: Provider, **judge: Any) -> dict[int, float]:
    write_cases(tmp_path, len(THOUGHTS))
    path = write_eval(tmp_path, provider.url, metrics=GEVAL, gate={}, **({"judge": judge} if judge else {}))
    done = queue_eval("run", path, "--run-id", "r1", cwd=tmp_path)
    assert done.code in (0, 2), done.err
    return {int(row["name"].split()[1]): row["metrics"]["Polite"].get("score") for row in rows(tmp_path, "r1")}


def stock(provider: Provider) -> dict[int, float]:
    """DeepEval alone, on the same server."""
    from deepeval.metrics import GEval
    from deepeval.models import OpenAIModel
    from deepeval.test_case import LLMTestCase, SingleTurnParams

    params = [SingleTurnParams.INPUT, SingleTurnParams.ACTUAL_OUTPUT]
    scores = {}
    for item in THOUGHTS:
        model = OpenAIModel(model=KNOWN, api_key="k", base_url=provider.url)
        metric = GEval(name="Polite", evaluation_steps=STEPS, evaluation_params=params, model=model, async_mode=False)
        metric.measure(LLMTestCase(input=f"What colour has item {item}?", actual_output="red"), _show_indicator=False)
        scores[item] = metric.score
    return scores


def http(provider: Provider, model: str) -> dict[str, Any]:
    return {"type": "openai", "model": model, "base_url": provider.url, "api_key_env": "JUDGE_API_KEY"}


def imported(provider: Provider) -> dict[str, Any]:
    params = {"model": KNOWN, "base_url": provider.url}
    return {
        "type": "import",
        "path": "deepeval.models:OpenAIModel",
        "params": params,
        "params_env": {"api_key": "JUDGE_API_KEY"},
    }


@pytest.mark.parametrize("kind", ["openai", "import"])
def test_scores_are_those_of_deepeval_on_the_same_server(tmp_path: Path, judge: Provider, kind: str) -> None:
    found = ours(tmp_path, judge, **(http(judge, KNOWN) if kind == "openai" else imported(judge)))
    assert found == pytest.approx(WEIGHED)
    assert found == pytest.approx(stock(judge))
    body = report(tmp_path, "r1")
    assert body["judge"]["is_weighed"] is True
    assert body["accounting"]["input_tokens"] > 0


def test_a_server_that_returns_no_logprobs_is_asked_without_and_the_report_has_it(
    tmp_path: Path, judge: Provider
) -> None:
    judge.token_choices = lambda _body: None
    found = ours(tmp_path, judge, **http(judge, KNOWN))
    assert found == pytest.approx(PLAIN)
    assert found == pytest.approx(stock(judge))
    assert report(tmp_path, "r1")["judge"]["is_weighed"] is False


def test_a_server_that_refuses_logprobs_is_asked_without(tmp_path: Path, judge: Provider) -> None:
    error = {"error": {"message": "Unsupported parameter: 'logprobs'", "param": "logprobs"}}
    judge.fault = lambda n, body: Fault(400, json.dumps(error)) if body.get("logprobs") else answer(n, body)
    assert ours(tmp_path, judge, **http(judge, KNOWN)) == pytest.approx(PLAIN)
    assert report(tmp_path, "r1")["judge"]["is_weighed"] is False
    assert sum(bool(body.get("logprobs")) for body in judge.bodies) == 1


def test_a_model_that_deepeval_does_not_know_is_not_asked_for_logprobs(tmp_path: Path, judge: Provider) -> None:
    assert ours(tmp_path, judge, **http(judge, UNKNOWN)) == pytest.approx(PLAIN)
    assert not any(body.get("logprobs") for body in judge.bodies)
    assert report(tmp_path, "r1")["judge"]["is_weighed"] is False


def test_where_the_run_began_with_logprobs_an_answer_without_is_none(tmp_path: Path, judge: Provider) -> None:
    """A score that is not weighed among weighed ones would be compared with them."""
    judge.token_choices = lambda body: None if item_of(body) == 2 else choices(body)
    found = ours(tmp_path, judge, **http(judge, KNOWN))
    assert found.pop(2) is None
    assert found == pytest.approx({0: 0.75, 1: 0.5, 3: WEIGHED[3]})
