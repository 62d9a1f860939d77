"""One line per case: results.jsonl for programs, results.csv for spreadsheets."""

import csv
import json
from pathlib import Path
from typing import Any

from queue_eval.core.case import Case
from queue_eval.core.price import Price
from queue_eval.core.record import MetricResult, Record
from queue_eval.core.report import Report
from queue_eval.report.escape import for_cell, for_json_line
from queue_eval.report.texts import shown


def case_row(case: Case, record: Record | None, price: Price | None) -> dict[str, Any]:
    """A line of results.jsonl; docs/reference/report.md explains it."""
    row: dict[str, Any] = {
        "case_id": case.case_id,
        "name": case.name,
        "place": case.place,
        "tags": list(case.tags),
        "metadata": case.fields.get("metadata"),
        "fields": case.fields,
        "status": record.ending.value if record else "missing",
    }
    if record is None:
        return row
    return row | {
        "reason": record.reason,
        "metrics": {m.name: _metric_row(m, price) for m in record.metrics},
        "judge_calls": record.usage.judge_calls,
        "retries_429": record.usage.retries_429,
        "input_tokens": record.usage.input_tokens,
        "output_tokens": record.usage.output_tokens,
        "cost_usd": round(price.cost_usd(record.usage), 8) if price else None,
        "duration_s": round(record.duration_s, 4),
        "busy_s": record.busy_s,
        "limiter_wait_s": record.waited_s,
        "attempts": record.delivery,
        "worker": record.worker,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
    }


def _metric_row(metric: MetricResult, price: Price | None) -> dict[str, Any]:
    return {
        "score": metric.score,
        "threshold": metric.threshold,
        "passed": metric.passed,
        "reason": metric.reason,
        "error": metric.error,
        "judge_calls": metric.usage.judge_calls,
        "input_tokens": metric.usage.input_tokens,
        "output_tokens": metric.usage.output_tokens,
        "cost_usd": round(price.cost_usd(metric.usage), 8) if price else None,
        "duration_s": round(metric.duration_s, 4),
    }


class JsonLines:
    name = "results.jsonl"

    def __init__(self, folder: Path, price: Price | None) -> None:
        self._path = folder / self.name
        self._file = self._path.open("w", encoding="utf-8")
        self._price = price

    def add(self, case: Case, record: Record | None) -> None:
        line = json.dumps(case_row(case, record, self._price), ensure_ascii=False)
        self._file.write(for_json_line(line) + "\n")

    def finish(self, report: Report) -> Path:
        self._file.close()
        return self._path


_TEXTS = ("input", "actual_output", "expected_output", "turns")
_FACTS = ("judge_calls", "input_tokens", "output_tokens", "cost_usd", "duration_s", "attempts", "worker")


class CsvTable:
    name = "results.csv"

    def __init__(self, folder: Path, metrics: list[str], price: Price | None) -> None:
        self._path = folder / self.name
        self._file = self._path.open("w", encoding="utf-8-sig", newline="")  # Excel asks for the mark
        self._writer = csv.writer(self._file)
        self._metrics = metrics
        self._price = price
        columns = [column for name in metrics for column in (f"{name}", f"{name} passed", f"{name} reason")]
        head = [
            "case_id",
            "name",
            "place",
            "tags",
            "status",
            *columns,
            *_TEXTS,
            *_FACTS,
            "problem",
        ]
        self._writer.writerow([for_cell(column) for column in head])

    def add(self, case: Case, record: Record | None) -> None:
        row = case_row(case, record, self._price)
        metrics = row.get("metrics", {})
        cells: list[Any] = [row["case_id"], row["name"], row["place"], " ".join(row["tags"]), row["status"]]
        for name in self._metrics:
            metric = metrics.get(name, {})
            cells += [metric.get("score"), metric.get("passed"), metric.get("reason") or metric.get("error")]
        texts = shown(case)
        cells += [texts.get(key) for key in _TEXTS]
        cells += [row.get(key) for key in (*_FACTS, "reason")]
        self._writer.writerow([for_cell(cell) if isinstance(cell, str) else cell for cell in cells])

    def finish(self, report: Report) -> Path:
        self._file.close()
        return self._path
