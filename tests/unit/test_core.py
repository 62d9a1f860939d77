"""Pure decisions and figures."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_eval.core import objects
from queue_eval.core.attempt import Accept, Backoff, DeadLetter, Retry, after_attempt
from queue_eval.core.bucket import LEAST_JITTER_S, bucket_for, cut, recovered
from queue_eval.core.case import CaseIdentity
from queue_eval.core.ending import Ending
from queue_eval.core.errors import UsageError
from queue_eval.core.gate import GateRules, MetricFigures, MetricRule, Verdict, judge_gate
from queue_eval.core.limits import DIMENSIONS, Counting, lane_of
from queue_eval.core.location import canonical
from queue_eval.core.naming import checked_run_id
from queue_eval.core.price import Price
from queue_eval.core.record import MetricResult, Record
from queue_eval.core.summary import Tally, wilson
from queue_eval.core.usage import Usage
from queue_eval.core.weight import case_weight, combined, heaviest_first

BACKOFF = Backoff(base_s=1.0, max_s=30.0)
FINE = MetricFigures(mean=0.8, pass_rate=0.9, n=100, errors=0)


def decide(*errors: tuple[str, str, bool], metrics: int = 2, attempt: int = 1) -> Accept | Retry | DeadLetter:
    return after_attempt(list(errors), metrics=metrics, attempt=attempt, max_attempts=3, backoff=BACKOFF, jitter=0.0)


class TestAfterAttempt:
    def test_without_errors_the_case_is_accepted(self) -> None:
        assert decide() == Accept()

    def test_a_retriable_error_is_retried_while_attempts_remain(self) -> None:
        assert decide(("F", "timeout", True)) == Retry(delay_s=0.5)
        assert decide(("F", "timeout", True), attempt=2) == Retry(delay_s=1.0)

    def test_after_the_last_attempt_the_scores_there_are_count(self) -> None:
        assert decide(("F", "timeout", True), attempt=3) == Accept()

    def test_without_any_score_the_case_is_dead_with_the_reason(self) -> None:
        verdict = decide(("F", "timeout", True), ("A", "timeout", True), attempt=3)
        assert isinstance(verdict, DeadLetter)
        assert "F: timeout" in verdict.reason

    def test_what_can_never_succeed_is_not_retried(self) -> None:
        assert isinstance(decide(("F", "too long", False), ("A", "too long", False)), DeadLetter)
        assert decide(("F", "too long", False)) == Accept()


class TestBackoff:
    @given(attempt=st.integers(1, 10_000), jitter=st.floats(0, 0.999))
    def test_it_stays_within_its_bounds(self, attempt: int, jitter: float) -> None:
        assert 0.5 <= BACKOFF.delay_s(attempt, jitter=jitter) <= 30.0

    def test_retry_after_is_a_lower_bound_and_itself_bounded(self) -> None:
        assert BACKOFF.delay_s(1, jitter=0.0, retry_after_s=7.0) == 7.0
        assert BACKOFF.delay_s(1, jitter=0.0, retry_after_s=86_400.0) == 60.0
        assert BACKOFF.delay_s(1, jitter=0.0, retry_after_s=-5.0) == 0.5


class TestGate:
    def rules(self, **changes: object) -> GateRules:
        base = {"metrics": {"F": MetricRule(min_mean=0.7, min_pass_rate=0.8)}}
        return GateRules(**(base | changes))  # type: ignore[arg-type]

    def test_it_passes_when_every_bound_holds(self) -> None:
        result = judge_gate(self.rules(), {"F": FINE}, cases=100, scored=100, dead=0)
        assert (result.verdict, result.exit_code) == (Verdict.PASS, 0)

    def test_a_gate_without_bounds_reports_that_it_holds_nothing(self) -> None:
        result = judge_gate(GateRules(metrics={}), {"F": FINE}, cases=100, scored=100, dead=0)
        assert result.verdict is Verdict.PASS
        assert "no bounds are set" in result.reasons[0]

    def test_a_value_on_its_bound_passes(self) -> None:
        figures = MetricFigures(mean=0.7 - 1e-16, pass_rate=0.8, n=100, errors=0)
        assert judge_gate(self.rules(), {"F": figures}, cases=100, scored=100, dead=0).verdict is Verdict.PASS

    def test_a_value_below_its_bound_fails_with_its_reason(self) -> None:
        figures = MetricFigures(mean=0.69, pass_rate=0.9, n=100, errors=0)
        result = judge_gate(self.rules(), {"F": figures}, cases=100, scored=100, dead=0)
        assert (result.verdict, result.exit_code) == (Verdict.FAIL, 1)
        assert result.reasons == ("F mean 0.690 is below 0.7",)

    def test_a_case_that_is_dead_has_not_passed(self) -> None:
        """96 of 100 pass, 3 fail, and one answer provoked its own death: 96 %, not 96 of 99."""
        rules = GateRules(metrics={"F": MetricRule(min_pass_rate=0.965)}, min_coverage=0.95)
        figures = MetricFigures(mean=0.9, pass_rate=96 / 99, n=99, errors=1)
        result = judge_gate(rules, {"F": figures}, cases=100, scored=99, dead=1)
        assert result.verdict is Verdict.FAIL
        assert result.checks[0].actual == pytest.approx(0.96)
        assert "1 of 100 cases have no score and count as not passed" in result.reasons[0]

    @given(passed=st.integers(0, 50), failed=st.integers(0, 50), bad=st.integers(1, 20), bound=st.floats(0.01, 1.0))
    def test_a_bad_answer_gains_nothing_by_its_own_death(
        self, passed: int, failed: int, bad: int, bound: float
    ) -> None:
        rules = GateRules(metrics={"F": MetricRule(min_pass_rate=bound)}, min_coverage=0.0)
        cases = passed + failed + bad

        def verdict(n: int) -> Verdict:
            figures = MetricFigures(mean=0.5 if n else None, pass_rate=passed / n if n else None, n=n, errors=cases - n)
            return judge_gate(rules, {"F": figures}, cases=cases, scored=n, dead=cases - n).verdict

        honest, dead = verdict(cases), verdict(passed + failed)
        assert dead is not Verdict.PASS or honest is Verdict.PASS

    def test_an_aborted_run_never_passes(self) -> None:
        result = judge_gate(self.rules(), {"F": FINE}, cases=100, scored=100, dead=0, is_aborted=True)
        assert (result.verdict, result.reasons) == (Verdict.INCONCLUSIVE, ("the run was aborted",))

    def test_a_run_without_any_score_never_passes(self) -> None:
        rules = GateRules(metrics={}, min_coverage=0.0)
        assert judge_gate(rules, {}, cases=2, scored=0, dead=2).verdict is Verdict.INCONCLUSIVE
        assert judge_gate(rules, {}, cases=2, scored=1, dead=1).verdict is Verdict.PASS

    def test_a_warning_gate_exits_0(self) -> None:
        figures = MetricFigures(mean=0.1, pass_rate=0.1, n=100, errors=0)
        result = judge_gate(self.rules(block=False), {"F": figures}, cases=100, scored=100, dead=0)
        assert (result.verdict, result.exit_code) == (Verdict.FAIL, 0)

    @pytest.mark.parametrize(
        ("figures", "cases", "scored", "dead"),
        [(FINE, 101, 100, 0), (FINE, 0, 0, 0), (MetricFigures(mean=0.9, pass_rate=1.0, n=90, errors=10), 100, 100, 0)],
        ids=["a case is missing", "no cases", "below the coverage floor"],
    )
    def test_missing_data_never_passes(self, figures: MetricFigures, cases: int, scored: int, dead: int) -> None:
        result = judge_gate(self.rules(), {"F": figures}, cases=cases, scored=scored, dead=dead)
        assert (result.verdict, result.exit_code) == (Verdict.INCONCLUSIVE, 2)

    def test_a_rule_for_a_metric_without_values_is_inconclusive(self) -> None:
        empty = MetricFigures(mean=None, pass_rate=None, n=0, errors=5)
        assert (
            judge_gate(self.rules(min_coverage=0.0), {"F": empty}, cases=5, scored=5, dead=0).verdict
            is Verdict.INCONCLUSIVE
        )

    def test_the_error_rate_has_a_ceiling(self) -> None:
        figures = MetricFigures(mean=0.9, pass_rate=0.9, n=97, errors=3)
        result = judge_gate(self.rules(max_error_rate=0.02), {"F": figures}, cases=100, scored=100, dead=0)
        assert result.reasons == ("error rate 0.030 is above 0.02",)

    @given(n=st.integers(0, 50), missing=st.integers(1, 50))
    def test_no_incomplete_run_passes(self, n: int, missing: int) -> None:
        figures = MetricFigures(mean=1.0 if n else None, pass_rate=1.0 if n else None, n=n, errors=0)
        rules = GateRules(metrics={}, min_coverage=0.0)
        assert judge_gate(rules, {"F": figures}, cases=n + missing, scored=n, dead=0).verdict is Verdict.INCONCLUSIVE


def record(
    case_id: str, *, start: float, end: float, score: float | None = 0.5, ending: Ending = Ending.SCORED
) -> Record:
    metric = MetricResult(
        name="F", threshold=0.5, score=score, passed=None if score is None else score >= 0.5, error="broke" if score is None else None
    )  # fmt: skip
    return Record(
        run_id="r", case_id=case_id, ending=ending, execution="e-1", delivery=1, worker="w", started_at=start, ended_at=end, busy_s=end - start,
        metrics=(metric,), usage=Usage(judge_calls=2, input_tokens=10),
    )  # fmt: skip


class TestTally:
    def test_a_failed_metric_is_no_score(self) -> None:
        tally = Tally({"F": 0.5})
        tally.add_outcome(record("a", start=0, end=1, score=1.0))
        tally.add_outcome(record("b", start=0, end=1, score=None))
        figures = tally.metrics["F"].figures()
        assert (figures.mean, figures.pass_rate, figures.n, figures.errors) == (1.0, 1.0, 1, 1)

    def test_a_dead_case_is_an_error_of_every_metric_and_no_score(self) -> None:
        tally = Tally({"F": 0.5, "G": 0.5})
        dead = record("a", start=0, end=1, score=None, ending=Ending.DEAD)
        tally.add_outcome(dead)
        assert (tally.scored, tally.dead) == (0, 1)
        assert [m.figures().errors for m in tally.metrics.values()] == [1, 1]

    def test_every_execution_is_paid_for_once(self) -> None:
        tally = Tally({"F": 0.5})
        tally.add_outcome(record("a", start=0, end=1))
        other = record("a", start=2, end=3, ending=Ending.SUPERSEDED).model_copy(update={"execution": "e-2"})
        tally.add_spent(other)
        assert tally.usage.judge_calls == 4
        tally.add_spent(other)  # two records of one execution, as a cancelled write once left them
        assert tally.usage.judge_calls == 4
        assert tally.scored == 1

    def test_the_bound_is_the_larger_of_even_share_and_longest_case(self) -> None:
        tally = Tally({"F": 0.5})
        for n in range(4):
            tally.add_outcome(record(str(n), start=n // 2, end=n // 2 + 1))
        assert (tally.peak_in_flight, tally.bound_s, tally.elapsed_s) == (2, 2.0, 2.0)
        tally.add_outcome(record("long", start=0, end=30))
        assert tally.bound_s == 30.0

    @given(st.permutations([record(str(n), start=n, end=n + 1.5, score=n / 7) for n in range(7)]))
    def test_the_order_of_records_does_not_matter(self, records: list[Record]) -> None:
        tally = Tally({"F": 0.5})
        for r in records:
            tally.add_outcome(r)
        figures = tally.metrics["F"].figures()
        assert figures.mean == math.fsum(n / 7 for n in range(7)) / 7
        assert (tally.peak_in_flight, tally.elapsed_s) == (2, 7.5)


def test_records_survive_their_json() -> None:
    before = record("a", start=1.25, end=2.5)
    assert Record.from_json(before.to_json()) == before


@given(passed=st.integers(0, 1000), failed=st.integers(0, 1000))
def test_the_interval_holds_the_rate(passed: int, failed: int) -> None:
    n = passed + failed
    low, high = wilson(passed, n)
    assert 0 <= low <= high <= 1
    if n:
        assert low - 1e-9 <= passed / n <= high + 1e-9


def test_wilsons_interval_is_the_published_one() -> None:
    # Newcombe 1998, table I: 81 of 263
    low, high = wilson(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_identical_cases_get_ids_of_their_own() -> None:
    identity = CaseIdentity()
    first, second = (
        identity.of("single", {"input": "a", "context": ["x"]}),
        identity.of("single", {"context": ["x"], "input": "a"}),
    )
    assert second == f"{first}-2"
    assert identity.of("conversational", {"input": "a"}) != identity.of("single", {"input": "a"})
    assert identity.duplicates == 1


def test_heavier_cases_come_first_and_equals_keep_their_order() -> None:
    light, heavy = case_weight({"input": "x"}, judge_calls=3), case_weight({"context": ["x" * 4000]}, judge_calls=3)
    assert heavy > light
    assert heaviest_first([(light, 0), (heavy, 1), (light, 2)]) == [1, 0, 2]


def test_measured_seconds_and_estimates_meet_on_one_scale() -> None:
    nan = math.nan
    assert combined([100.0, 200.0, 300.0], [1.0, 2.0, nan]) == [1.0, 2.0, 3.0]
    assert combined([5.0], [nan]) == [5.0]


@given(
    dimension=st.sampled_from(DIMENSIONS),
    per_window=st.floats(3, 1e6),
    window_s=st.floats(0.5, 120),
    burst=st.none() | st.floats(1, 1e6),
    jitter_s=st.floats(0, 2),
    largest=st.floats(0, 1e6),
)
def test_a_bucket_never_exceeds_a_window(
    dimension: str, per_window: float, window_s: float, burst: float | None, jitter_s: float, largest: float
) -> None:
    counting = Counting(window="sliding", window_s=window_s, burst=burst)
    bucket = bucket_for(dimension, per_window * 60 / window_s, counting, jitter_s=jitter_s, largest=largest)
    most = bucket.burst + bucket.refill_per_s * (window_s + max(jitter_s, LEAST_JITTER_S))
    if dimension == "requests":
        assert int(most) <= per_window + 1e-6  # requests are whole
    else:
        assert most <= per_window * (1 + 1e-9)
        assert bucket.burst >= min(largest, per_window / 2) * (1 - 1e-9)
    assert bucket.refill_per_s > 0


@given(limit=st.floats(60, 1e6), jitter_s=st.floats(0, 0.5))
def test_a_providers_own_bucket_gets_the_full_rate(limit: float, jitter_s: float) -> None:
    bucket = bucket_for("requests", limit, Counting(window="bucket"), jitter_s=jitter_s)
    assert bucket.refill_per_s * 60 == pytest.approx(limit)
    capacity = limit / 60
    assert bucket.burst == 1.0 or bucket.burst + bucket.refill_per_s * jitter_s <= capacity * (1 + 1e-9)


@given(cut_from=st.floats(0.02, 1.0), share=st.floats(0.0, 1.0))
def test_a_cut_rate_is_back_whatever_it_was_cut_to(cut_from: float, share: float) -> None:
    """docs/explanation/limiter.md: half the rate within 30 s, 95 % within 60 s, never more than all of it."""
    cut_to = cut_from * share
    assert recovered(cut_from, cut_to, 0.0) == pytest.approx(cut_to)
    assert recovered(cut_from, cut_to, 30.0) >= 0.5
    assert recovered(cut_from, cut_to, 60.0) >= 0.95
    assert recovered(cut_from, cut_to, 1e6) == 1.0
    shares = [recovered(cut_from, cut_to, since_s) for since_s in range(100)]
    assert shares == sorted(shares)


@given(factor=st.floats(0.02, 1.0))
def test_a_cut_takes_a_tenth_and_leaves_something(factor: float) -> None:
    assert cut(factor) == pytest.approx(max(0.02, factor * 0.9))


@pytest.mark.parametrize(
    "url",
    ["http://h/v1", "http://h/v1/", "HTTP://H/v1", "http://h:80/v1", "http://H:80/v1//"],
)
def test_one_address_has_one_spelling(url: str) -> None:
    assert canonical(url) == "http://h/v1"


@pytest.mark.parametrize("url", ["https://h/v1", "http://h:443/v1", "http://h/V1", "http://h/v1/x", "http://h2/v1"])
def test_other_addresses_stay_apart(url: str) -> None:
    assert canonical(url) != "http://h/v1"


@pytest.mark.parametrize("run_id", ["a", "nightly-2026-11-24", "0"])
def test_run_ids_that_are_fine(run_id: str) -> None:
    assert checked_run_id(run_id) == run_id


@pytest.mark.parametrize("run_id", ["", "-a", "a-", "A", "a_b", "../x", "a" * 49, "a\n", "ä", "a b"])
def test_run_ids_that_are_refused_with_the_remedy(run_id: str) -> None:
    with pytest.raises(UsageError, match="lower-case letters"):
        checked_run_id(run_id)


def test_object_names_show_what_they_are() -> None:
    assert objects.case_of_result(objects.result("ab-2")) == "ab-2"
    assert objects.dead_letter(objects.execution("ab-2", "e-3", Ending.DEAD)) == ("ab-2", "e-3")
    assert objects.dead_letter(objects.execution("ab-2", "e-3", Ending.RETRIED)) is None


def test_prices_are_per_million() -> None:
    price = Price(input_per_million_usd=1.0, output_per_million_usd=4.0)
    assert price.cost_usd(Usage(input_tokens=500_000, output_tokens=250_000)) == 1.5


KEPT = {"requests_per_minute": 600.0, "tokens_per_minute": None, "input_tokens_per_minute": 9e5, "output_tokens_per_minute": None,
    "burst": None, "window": "bucket", "window_s": 1, "settle": "adjust", "headers": False, "priority": "pr"}  # fmt: skip


def test_a_lane_is_read_from_the_limits_that_a_run_kept() -> None:
    lane = lane_of("r1", KEPT)
    assert (lane.name, lane.weight, lane.obeys_headers) == ("r1", 100.0, False)
    assert lane.limits.known == {"requests": 600.0, "input": 900_000.0}
    assert (lane.counting.window, lane.counting.window_s, lane.counting.burst) == ("bucket", 1.0, None)


@pytest.mark.parametrize(
    "changed",
    [
        {"requests_per_minute": -1},
        {"requests_per_minute": float("nan")},
        {"tokens_per_minute": True},
        {"tokens_per_minute": "9"},
        {"window": "other"},
        {"window": ["sliding"]},
        {"headers": 1},
        {"priority": 0},
        {"priority": None},
        {"burst": 1e13},
        {"burst": 0.5},
        {"requests_per_minute": 2e9},
        {"window_s": None},
        {"window_s": 0.01},
        {"window_s": 100_000},
    ],
    ids=str,
)
def test_limits_that_another_hand_has_written_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"is no|no limits|could not convert"):
        lane_of("r1", KEPT | changed)
    with pytest.raises(ValueError, match="no limits"):
        lane_of("r1", {name: value for name, value in KEPT.items() if name not in changed})
