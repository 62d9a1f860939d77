"""summary.md: what a pull request or a chat shows."""

from pathlib import Path

from queue_eval.core.case import Case
from queue_eval.core.record import Record
from queue_eval.core.report import MetricPart, Report, cost_text
from queue_eval.report.escape import for_markdown
from queue_eval.report.worst import Worst

SHOWN = 10
_SIGN = {"pass": "✅ pass", "fail": "❌ fail", "inconclusive": "⚠️ inconclusive"}


class Summary:
    name = "summary.md"

    def __init__(self, folder: Path) -> None:
        self._path = folder / self.name
        self._worst = Worst(SHOWN)

    def add(self, case: Case, record: Record | None) -> None:
        self._worst.add(case, record)

    def finish(self, report: Report) -> Path:
        lines = [f"## queue-eval: {_SIGN[report.verdict]}", ""]
        if warning := report.judge.get("warning"):
            lines += [f"> Judge: {for_markdown(str(report.judge['model']))}, {warning}.", ""]
        lines += [f"- {for_markdown(reason)}" for reason in report.gate.reasons]
        lines += ["", "| metric | mean | pass rate (95 % interval) | scored | errors |", "|---|---|---|---|---|"]
        lines += [
            f"| {for_markdown(name)} | {_number(m.mean)} | {_rate(m)} | {m.n} of {report.accounting.cases} |"
            f" {m.errors} |"
            for name, m in report.metrics.items()
        ]
        lines += ["", *_facts(report), "", *self._cases()]
        self._path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return self._path

    def _cases(self) -> list[str]:
        bad = [(case, record) for case, record in self._worst.rows() if _problem(record)]
        if not bad:
            return []
        rows = [f"| {for_markdown(case.name, 60)} | {for_markdown(_problem(record))} |" for case, record in bad]
        return ["<details><summary>Worst cases</summary>", "", "| case | what |", "|---|---|", *rows, "", "</details>"]


def _facts(report: Report) -> list[str]:
    a = report.accounting
    duplicates = f" ({a.duplicates} identical to others)" if a.duplicates else ""
    return [
        f"{a.cases} cases{duplicates} = {a.scored} scored + {a.dead} dead + {a.missing} missing.",
        f"{a.judge_calls:,} judge calls, rate-limited {a.retries_429:,} times, {cost_text(a)}.",
        *_limiter(report),
        (
            f"{report.elapsed_s:.1f} s; no schedule with {report.in_flight} in flight and within the limits"
            f" could take less than {report.bound_s:.1f} s."
        ),
        f"Run {for_markdown(report.run_id)}"
        + (f", commit {for_markdown(report.commit_sha[:12])}" if report.commit_sha else "")
        + ".",
    ]


def _limiter(report: Report) -> list[str]:
    limiter = report.limiter
    if limiter is None or limiter.utilisation is None:
        return []
    return [
        (
            f"The limiter gave {limiter.utilisation:.1%} of the limit while calls waited; {limiter.cuts} cuts, paused"
            f" for {limiter.paused_s:.1f} s."
        )
    ]


def _problem(record: Record | None) -> str:
    if record is None:
        return "no outcome"
    if record.reason:
        return record.reason
    parts = [
        f"{m.name}: {m.error}" if m.error else f"{m.name} {m.score:.2f}: {m.reason or ''}"
        for m in record.metrics
        if not m.passed
    ]
    return "; ".join(parts)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _rate(metric: MetricPart) -> str:
    if metric.pass_rate is None or metric.pass_rate_interval is None:
        return "–"
    low, high = metric.pass_rate_interval
    return f"{metric.pass_rate:.1%} ({low:.1%} – {high:.1%})"
