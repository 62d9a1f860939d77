"""What the measurements reckon with: shapes, shards, the simulation, pictures and the checker."""

import json
import math
import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from loadtest.__main__ import PARTS
from loadtest.chaos.audit import call_by_call
from loadtest.paced import ITEM, pace, write_paced
from loadtest.picture import Chart
from loadtest.ranges import check
from loadtest.shapes import SHAPES, guessed
from loadtest.skew import shards
from loadtest.skew.simulation import Plan, makespan_s


@pytest.mark.parametrize("shape", ["uniform", "log-normal", "Pareto"])
def test_a_shape_has_the_mean_that_is_asked_for(shape: str) -> None:
    spent_s = SHAPES[shape](1000, 17.28, random.Random(1))
    assert math.isclose(math.fsum(spent_s), 17_280)
    assert min(spent_s) > 0


def test_guesses_are_right_without_an_error_and_worthless_with_an_infinite_one() -> None:
    spent_s = [1.0, 2.0, 3.0]
    assert guessed(spent_s, random.Random(1), error=0) == spent_s
    assert max(guessed(spent_s, random.Random(1), error=math.inf)) < 1


@pytest.mark.parametrize("way", list(shards.WAYS))
def test_shards_hold_every_case_once(way: str) -> None:
    split = shards.WAYS[way]([1.0] * 23, 4)
    assert sorted(position for shard in split for position in shard) == list(range(23))
    assert len(split) == 4


def test_packing_is_by_weight_and_the_makespan_by_truth() -> None:
    split = shards.packed([3.0, 3.0, 2.0, 2.0, 2.0], 2)
    assert shards.makespan_s(split, [3.0, 3.0, 2.0, 2.0, 2.0]) == 7.0  # the known worst of this rule: 6 is possible


def test_a_shard_whose_worker_dies_does_its_case_again_when_it_is_back() -> None:
    split = [[0], [1, 2]]
    assert (
        shards.makespan_with_a_loss_s(split, [1.0, 4.0, 4.0], lost=-1, lost_at_s=6.0, back_after_s=10.0) == 8 + 2 + 10
    )


class TestTheSimulation:
    def test_equal_cases_end_at_the_bound(self) -> None:
        assert makespan_s(Plan(spent_s=[10.0] * 8, weights=[1.0] * 8, workers=4)) == pytest.approx(20, abs=0.2)

    def test_the_heaviest_case_starts_first(self) -> None:
        spent_s = [1.0] * 12 + [12.0]
        assert makespan_s(Plan(spent_s=spent_s, weights=spent_s, workers=2)) == pytest.approx(12, abs=0.3)
        assert makespan_s(Plan(spent_s=spent_s, weights=[2.0] * 12 + [1.0], workers=2)) > 17

    def test_a_lost_workers_case_waits_for_its_lease_and_is_done_again(self) -> None:
        plan = Plan(spent_s=[20.0, 20.0], weights=[1.0, 1.0], workers=2, lost_at_s=10.0)
        # the other one has it after its own case: the lease has ended by then
        assert makespan_s(plan) == pytest.approx(40, abs=1.0)

    def test_workers_that_come_later_help(self) -> None:
        alone = makespan_s(Plan(spent_s=[10.0] * 8, weights=[1.0] * 8, workers=1))
        helped = makespan_s(Plan(spent_s=[10.0] * 8, weights=[1.0] * 8, workers=1, added=[40.0]))
        assert alone == pytest.approx(80, abs=0.2)
        assert helped == pytest.approx(60, abs=0.2)


def test_a_paced_case_shows_its_number_and_the_judge_takes_its_time(tmp_path: Path) -> None:
    write_paced(tmp_path, [3.0, 6.0], [1.0, 9.0])
    rows = [json.loads(line) for line in (tmp_path / "cases.jsonl").read_text().splitlines()]
    assert [int(found[1]) for row in rows if (found := ITEM.search(row["input"]))] == [0, 1]
    assert len(rows[1]["retrieval_context"][0]) > 5 * len(rows[0]["retrieval_context"][0])
    fault = pace([3.0, 6.0], {"messages": [{"role": "user", "content": rows[1]["input"]}]})
    assert fault
    assert fault.latency_s == 2.0
    assert pace([3.0], {"messages": [{"role": "user", "content": "Are you there?"}]}) is None


@pytest.mark.parametrize("log_x", [False, True])
def test_a_chart_is_xml_and_escapes_what_it_is_given(tmp_path: Path, log_x: bool) -> None:
    chart = Chart(title="a < b & c", x="workers", y="s", log_x=log_x, bound=1.0, bound_name="bound")
    chart.write(tmp_path / "c.svg", {"queue": [(4, 1.0), (16, 1.5)], "<shards>": [(4, 2.0), (16, 3.0)]})
    root = ET.parse(tmp_path / "c.svg").getroot()
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert {"a < b & c", "<shards>", "bound"} <= set(texts)


@pytest.mark.parametrize(("figures", "code"), [({"p": {"a": 1.0}}, 0), ({"p": {"a": 3.0}}, 1), ({"p": {}}, 1), ({}, 1)])
def test_the_checker_fails_for_what_is_out_of_range_or_missing(
    tmp_path: Path, figures: dict[str, Any], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ranges.toml").write_text('[p]\n"a" = { max = 2 }\n')
    assert check(tmp_path / "ranges.toml", figures) == code
    assert {0: "ok", 1: "BAD"}[code] in capsys.readouterr().out
    assert check(tmp_path / "ranges.toml", {}, only=["q"]) == 0


def test_the_summary_has_what_readers_ask_for() -> None:
    row = {"ratio": 1.0, "compress": 6.0, "rss_mb": 250, "count_429": 0}
    found = PARTS["headline"].summary({"72": row, "288": row, "limited": row})
    assert set(found["headline"]) >= {"ratio_72", "ratio_288", "rss_mb", "rate_limited_ratio", "count_429"}
    over = {"queue": 1.0, "round-robin": 1.6, "contiguous": 1.5, "packed by weight": 1.2}
    found = PARTS["skew"].summary({"real": {"over_bound": over}})
    assert (found["skew"]["queue_over_bound"], found["skew"]["shards_over_bound"]) == (1.0, 1.6)
    found = PARTS["growth"].summary({"by_cases": [{"cases": 100, "enqueue_ms_per_case": 0.4}], "other": {"64": 0.1}})
    assert found == {"growth": [{"cases": 100, "enqueue_ms_per_case": 0.4}], "growth_by": {"other": {"64": 0.1}}}


def test_a_range_finds_its_row_by_name_or_by_cases(tmp_path: Path) -> None:
    path = tmp_path / "ranges.toml"
    path.write_text('[growth]\n"100/enqueue_ms_per_case" = { max = 0.5 }\n"other/64" = { max = 0.2 }\n')
    rows: list[dict[str, Any]] = [{"cases": 100, "enqueue_ms_per_case": 0.4}, {"name": "other", "64": 0.1}]
    assert check(path, {"growth": rows}) == 0
    assert check(path, {"growth": [{**rows[0], "enqueue_ms_per_case": 0.6}, rows[1]]}) == 1
    assert check(path, {"growth": rows[:1]}) == 1
    assert check(path, {"growth": rows[:1]}, partly=True) == 0


def test_shards_are_dealt_as_a_worker_takes_them() -> None:
    split = [[4, 0], [1], [2, 3]]
    order = shards.dealt(split)
    assert [[p for p in order[n::3] if p is not None] for n in range(3)] == split


def audited(*, booked: int, tokens: int, deliveries: int = 1) -> dict[str, Any]:
    """One case, for which the judge admitted seven calls of ten tokens."""
    seen = SimpleNamespace(admitted_by=Counter({"item 1": 7}), used_by=Counter({"item 1": 70}))
    here = SimpleNamespace(provider=seen, forgotten=Counter[str](), deliveries=lambda: Counter({"c": deliveries}))
    usage = {"judge_calls": booked, "input_tokens": tokens, "output_tokens": 0, "unmetered_calls": 0}
    record = {"case_id": "c", "execution": "e-1", "ending": "scored", "usage": usage}
    return call_by_call(here, [record], {"c": "item 1"})  # type: ignore[arg-type]


def test_the_storms_audit_finds_what_the_books_lack_or_have_too_much_of(capsys: pytest.CaptureFixture[str]) -> None:
    right = audited(booked=7, tokens=70)
    assert not any(right.values()), right
    assert audited(booked=6, tokens=60)["cases_with_calls_that_nobody_booked"] == 1
    assert audited(booked=8, tokens=80)["cases_with_calls_that_were_never_made"] == 1
    assert audited(booked=7, tokens=60)["cases_with_other_tokens_than_were_used"] == 1
    # an execution that died may have asked for them, twice at most
    assert '"unknown_executions"' not in capsys.readouterr().err
    unknown = audited(booked=0, tokens=0, deliveries=2)
    assert json.loads(capsys.readouterr().err) == {
        "case_id": "c", "unknown_executions": 1, "recorded": ["e-1"], "calls_not_booked": 7
    }  # fmt: skip
    assert (unknown["unknown_executions"], unknown["calls_of_unknown_executions"]) == (1, 7)
    assert unknown["cases_with_calls_that_nobody_booked"] == 0
