"""report.json: the figures of a run, versioned. docs/reference/report.md explains every field."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, ConfigDict

from queue_eval.core.bucket import bucket_for
from queue_eval.core.gate import GateResult
from queue_eval.core.limiter_stats import Slot, coalesced, utilisation
from queue_eval.core.limits import Charge
from queue_eval.core.manifest import Manifest
from queue_eval.core.price import Price
from queue_eval.core.summary import Distribution, Tally, wilson

REPORT_VERSION = 1

LEXICAL = "lexical"
LEXICAL_SERVED = "queue-eval-lexical"  # what our own endpoint calls its model


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class DistributionPart(_Part):
    mean: float
    p50: float
    p95: float
    longest: float


class Accounting(_Part):
    """cases = scored + dead + missing."""

    cases: int
    scored: int
    dead: int
    missing: int
    duplicates: int
    executions: int  # deliveries of cases to workers, lost ones included
    unrecorded_executions: int  # of these: their worker died, and what it had asked the judge is unknown
    judge_calls: int  # requests that the judge admitted, whatever became of them
    judge_calls_overhead: int  # of these: pre-flight, evaluation steps, probes
    retries_429: int
    input_tokens: int
    output_tokens: int
    unmetered_calls: int  # of the judge calls: without token usage in the answer
    cost_usd: float | None  # None: the model has no price in the configuration


class MetricPart(_Part):
    mean: float | None
    pass_rate: float | None
    pass_rate_interval: tuple[float, float] | None  # Wilson, 95 %
    n: int  # cases scored: the denominator of mean and pass_rate
    errors: int  # cases that the metric could not score
    threshold: float
    score: DistributionPart | None
    duration_s: DistributionPart | None
    judge_calls: int


class CheckPart(_Part):
    name: str
    actual: float | None
    bound: float
    ok: bool | None


class GatePart(_Part):
    mode: str
    checks: tuple[CheckPart, ...]
    reasons: tuple[str, ...]


class LimiterSlot(_Part):
    """A stretch of the limiter's life. The limiter may serve other runs too."""

    at: float  # Unix seconds
    span_s: float
    released: int
    released_for_this_run: int
    refused: int  # answers 429
    cuts: int
    paused_s: float
    waiting: int  # calls in the queue at the end
    rate: dict[str, float]  # per minute at the end, by dimension: the limit times the controller's share
    used: dict[str, float]  # net of what was given back, by dimension


class LimiterPart(_Part):
    released: int
    released_for_this_run: int
    refused: int
    cuts: int
    paused_s: float
    utilisation: float | None  # of the limits, in the stretches at whose end calls waited
    timeline: tuple[LimiterSlot, ...]


class Report(_Part):
    version: int = REPORT_VERSION
    run_id: str
    commit_sha: str | None
    labels: dict[str, str]
    verdict: str  # pass, fail or inconclusive
    exit_code: int
    judge: dict[str, Any]  # type and model, and a warning when it is the lexical one
    dataset: dict[str, Any]
    gate: GatePart
    accounting: Accounting
    metrics: dict[str, MetricPart]
    case_duration_s: DistributionPart | None
    started_at: float  # Unix seconds: the first claim
    ended_at: float  # the last end
    elapsed_s: float
    bound_s: float  # max(total busy time / in flight, longest case, what the limits allow): no schedule is faster
    in_flight: int  # the most executions that were under way at once
    limiter: LimiterPart | None  # None: the judge has none, or Redis lost its timeline
    versions: dict[str, str]

    @property
    def lacks_scores(self) -> bool:
        """Whether `retry` has something to ask for again."""
        return self.accounting.dead > 0 or any(metric.errors for metric in self.metrics.values())


def build_report(manifest: Manifest, tally: Tally, gate: GateResult, slots: Sequence[Slot] = ()) -> Report:
    """Depends on what the store holds alone: finalizing twice gives the same bytes."""
    price = manifest.settings.judge.token_price
    return Report(
        run_id=manifest.run_id,
        commit_sha=manifest.commit_sha,
        labels=manifest.labels,
        verdict=gate.verdict,
        exit_code=gate.exit_code,
        judge=_judge(manifest),
        dataset=manifest.dataset.model_dump(exclude={"chunks"}),
        gate=GatePart(
            mode=manifest.settings.gate.mode,
            checks=tuple(
                CheckPart(name=c.name, actual=_rounded(c.actual), bound=c.bound, ok=c.ok) for c in gate.checks
            ),
            reasons=gate.reasons,
        ),
        accounting=_accounting(manifest, tally, price),
        metrics={name: _metric(tally, name) for name in tally.metrics},
        case_duration_s=_spread(tally.case_durations),
        started_at=tally.started_at,
        ended_at=tally.ended_at,
        elapsed_s=round(tally.elapsed_s, 3),
        bound_s=round(max(tally.bound_s, _limited_s(manifest, tally, slots)), 3),
        in_flight=tally.peak_in_flight,
        limiter=_limiter(manifest.run_id, slots),
        versions=manifest.versions,
    )


def _judge(manifest: Manifest) -> dict[str, Any]:
    judge = manifest.settings.judge
    named: dict[str, Any] = {"type": judge.type, "model": judge.model}
    if manifest.served_model:
        named["served_model"] = manifest.served_model
    if manifest.is_weighed is not None:
        named["is_weighed"] = manifest.is_weighed
    if judge.type == LEXICAL or manifest.served_model == LEXICAL_SERVED:
        named["warning"] = "scored by comparing words, offline; not a language model"
    return named


def _accounting(manifest: Manifest, tally: Tally, price: Price | None) -> Accounting:
    cases, usage = manifest.dataset.cases, tally.usage
    return Accounting(
        cases=cases,
        scored=tally.scored,
        dead=tally.dead,
        missing=cases - tally.scored - tally.dead,
        duplicates=manifest.dataset.duplicates,
        executions=tally.deliveries,
        unrecorded_executions=max(0, tally.deliveries - tally.recorded),
        judge_calls=usage.judge_calls,
        judge_calls_overhead=tally.overhead.judge_calls,
        retries_429=usage.retries_429,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        unmetered_calls=usage.unmetered_calls,
        cost_usd=round(price.cost_usd(usage), 6) if price else None,
    )


def _limiter(run_id: str, slots: Sequence[Slot]) -> LimiterPart | None:
    if not slots:
        return None
    # from one stretch with calls left over to the next: calls waited all the time
    busy = [slot for before, slot in pairwise(slots) if before.waiting and slot.waiting]
    share = utilisation(busy, sum(slot.span_s for slot in busy)) if busy else None
    return LimiterPart(
        released=sum(slot.released for slot in slots),
        released_for_this_run=sum(slot.lanes.get(run_id, 0) for slot in slots),
        refused=sum(slot.refused for slot in slots),
        cuts=sum(slot.cuts for slot in slots),
        paused_s=round(sum(slot.paused_s for slot in slots), 3),
        utilisation=None if share is None else round(share, 4),
        timeline=tuple(_slot(run_id, slot) for slot in coalesced(slots)),
    )


def _limited_s(manifest: Manifest, tally: Tally, slots: Sequence[Slot]) -> float:
    """Seconds that the limits ask for what the cases took, at the highest that was in force."""
    lane = manifest.settings.limits.lane(manifest.run_id)
    spent, overhead = tally.usage, tally.overhead
    took = Charge(
        requests=spent.judge_calls - overhead.judge_calls,
        input_tokens=spent.input_tokens - overhead.input_tokens,
        output_tokens=spent.output_tokens - overhead.output_tokens,
    )
    longest_s = 0.0
    for dimension, configured in lane.limits.known.items():
        # `tune` may have raised it, or lifted it
        limit = max([configured, *(slot.limits.get(dimension, math.inf) for slot in slots)])
        if math.isinf(limit):
            continue
        # larger calls make the burst larger and the rate smaller; the timeline does not keep which were in force
        buckets = [bucket_for(dimension, limit, lane.counting, jitter_s=0.0, largest=largest) for largest in (0, limit)]
        longest_s = max(longest_s, min((took.amounts[dimension] - b.burst) / b.refill_per_s for b in buckets))
    return longest_s


def _slot(run_id: str, slot: Slot) -> LimiterSlot:
    return LimiterSlot(
        at=slot.at,
        span_s=slot.span_s,
        released=slot.released,
        released_for_this_run=slot.lanes.get(run_id, 0),
        refused=slot.refused,
        cuts=slot.cuts,
        paused_s=round(slot.paused_s, 3),
        waiting=slot.waiting,
        rate={d: round(limit * slot.factor, 3) for d, limit in slot.limits.items()},
        used=slot.used,
    )


def _metric(tally: Tally, name: str) -> MetricPart:
    metric = tally.metrics[name]
    figures = metric.figures()
    interval = wilson(metric.passed, metric.n) if metric.n else None
    return MetricPart(
        mean=_rounded(figures.mean),
        pass_rate=_rounded(figures.pass_rate),
        pass_rate_interval=(round(interval[0], 6), round(interval[1], 6)) if interval else None,
        n=figures.n,
        errors=figures.errors,
        threshold=metric.threshold,
        score=_spread(Distribution.of(metric.scores)),
        duration_s=_spread(Distribution.of(metric.durations)),
        judge_calls=metric.usage.judge_calls,
    )


def _spread(spread: Distribution | None) -> DistributionPart | None:
    if spread is None:
        return None
    return DistributionPart(
        mean=round(spread.mean, 6), p50=round(spread.p50, 6), p95=round(spread.p95, 6), longest=round(spread.longest, 6)
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 9)


def cost_text(accounting: Accounting) -> str:
    """Tokens and cost in words; what is not known is named."""
    text = f"{accounting.input_tokens + accounting.output_tokens:,} tokens"
    if accounting.unmetered_calls:
        text += f" ({accounting.unmetered_calls:,} calls named none)"
    text += f", ${accounting.cost_usd:,.4f}" if accounting.cost_usd is not None else ", unpriced"
    if accounting.unrecorded_executions:
        text += f"; {accounting.unrecorded_executions:,} executions left no record, their calls are not among these"
    return text
