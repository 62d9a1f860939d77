"""The gate: turns a summary into one of three verdicts. It never passes on missing data."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from queue_eval.core.errors import EXIT_FAILED, EXIT_INCONCLUSIVE


class Verdict(StrEnum):
    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


NO_BOUNDS = "no bounds are set (gate.metrics): every complete run passes"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricFigures:
    mean: float | None
    pass_rate: float | None
    n: int  # cases scored
    errors: int  # cases where the metric gave no score


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRule:
    min_mean: float | None = None
    min_pass_rate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRules:
    block: bool = True  # False: warn, the exit code stays 0 on a failed gate
    metrics: Mapping[str, MetricRule]
    max_error_rate: float = 1.0  # of metric results without a score
    min_coverage: float = 0.95  # of cases that each metric must have scored


@dataclass(frozen=True, slots=True)
class Check:
    name: str  # "Faithfulness mean"
    actual: float | None
    bound: float
    ok: bool | None  # None: not known
    note: str = ""  # what the value counts, where that is not plain


@dataclass(frozen=True, slots=True)
class GateResult:
    verdict: Verdict
    checks: tuple[Check, ...]
    reasons: tuple[str, ...]
    exit_code: int


def judge_gate(
    rules: GateRules,
    metrics: Mapping[str, MetricFigures],
    *,
    cases: int,
    scored: int,
    dead: int,
    is_aborted: bool = False,
) -> GateResult:
    """Incomplete or uncovered runs are inconclusive; otherwise any check below its bound fails."""
    missing = cases - scored - dead
    checks: list[Check] = []
    doubts: list[str] = ["the run was aborted"] if is_aborted else []
    if missing:
        doubts.append(f"{missing} of {cases} cases have no outcome")
    if not cases:
        doubts.append("there are no cases")
    elif not scored:
        doubts.append("no case has a score")
    for name, figures in metrics.items():
        coverage = figures.n / cases if cases else 0.0
        if coverage < rules.min_coverage:
            doubts.append(
                f"{name} scored {figures.n} of {cases} cases, below the coverage floor of {rules.min_coverage:.0%}"
            )
    for name, rule in rules.metrics.items():
        checks += _metric_checks(name, rule, metrics.get(name), cases)
    results = sum(m.n + m.errors for m in metrics.values())
    if rules.max_error_rate < 1.0:
        rate = sum(m.errors for m in metrics.values()) / results if results else None
        checks.append(
            Check("error rate", rate, rules.max_error_rate, None if rate is None else rate <= rules.max_error_rate)
        )
    return _conclude(rules, checks, doubts)


def _metric_checks(name: str, rule: MetricRule, figures: MetricFigures | None, cases: int) -> list[Check]:
    """A mean is that of the scores there are.

    A case without one has not passed: else an answer that provokes its own death would raise the rate.
    """
    checks = []
    rate = figures.pass_rate * figures.n / cases if figures and figures.pass_rate is not None and cases else None
    unscored = cases - figures.n if figures else 0
    note = f" ({unscored} of {cases} cases have no score and count as not passed)" if unscored else ""
    for label, bound, actual, counted in (
        ("mean", rule.min_mean, figures.mean if figures else None, ""),
        ("pass rate", rule.min_pass_rate, rate, note),
    ):
        if bound is not None:
            # 1e-9: a mean of 0.7 that floating point left at 0.6999999999 is not below 0.7
            ok = None if actual is None else actual >= bound - 1e-9
            checks.append(Check(f"{name} {label}", actual, bound, ok, counted))
    return checks


def _conclude(rules: GateRules, checks: list[Check], doubts: list[str]) -> GateResult:
    doubts = doubts + [f"{c.name} has no value" for c in checks if c.ok is None]
    failures = [_failure(c) for c in checks if c.ok is False]
    if doubts:
        return GateResult(Verdict.INCONCLUSIVE, tuple(checks), tuple(doubts + failures), EXIT_INCONCLUSIVE)
    if failures:
        return GateResult(Verdict.FAIL, tuple(checks), tuple(failures), EXIT_FAILED if rules.block else 0)
    return GateResult(Verdict.PASS, tuple(checks), () if checks else (NO_BOUNDS,), 0)


def _failure(check: Check) -> str:
    relation = "above" if check.name == "error rate" else "below"
    return f"{check.name} {check.actual:.3f} is {relation} {check.bound:g}{check.note}"
