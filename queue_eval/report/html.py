"""report.html: one self-contained page.

Everything that comes from outside is escaped, nothing is loaded from elsewhere.
"""

import base64
import hashlib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from queue_eval.core.case import Case
from queue_eval.core.ending import Ending
from queue_eval.core.record import Record
from queue_eval.core.report import LimiterPart, Report, cost_text
from queue_eval.report.escape import without_escapes
from queue_eval.report.texts import shown
from queue_eval.report.worst import Worst

MAX_ROWS = 2000  # more make browsers slow; results.jsonl has all of them
BINS = 20


class HtmlReport:
    name = "report.html"

    def __init__(self, folder: Path, metrics: list[str]) -> None:
        self._path = folder / self.name
        self._worst = Worst(MAX_ROWS, _shortened)
        self._histograms = {name: [0] * BINS for name in metrics}

    def add(self, case: Case, record: Record | None) -> None:
        self._worst.add(case, record)
        for metric in record.metrics if record else ():
            if metric.score is not None and metric.name in self._histograms:
                self._histograms[metric.name][max(0, min(BINS - 1, int(metric.score * BINS)))] += 1

    def finish(self, report: Report) -> Path:
        environment = Environment(
            autoescape=True, finalize=_shown, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        source = files("queue_eval.report")
        script = (source / "report.js").read_text(encoding="utf-8")
        style = (source / "report.css").read_text(encoding="utf-8")
        page = environment.from_string((source / "report.html.j2").read_text(encoding="utf-8"))
        a = report.accounting
        text = page.render(
            report=report,
            rows=[_row(case, record, list(report.metrics)) for case, record in self._worst.rows()],
            left_out=self._worst.left_out,
            cost=cost_text(a),
            limiter=_chart(report.limiter) if report.limiter else None,
            histograms={name: _bars(counts) for name, counts in self._histograms.items()},
            script=script,
            style=style,
            script_hash=_hash(script),
            style_hash=_hash(style),
        )
        self._path.write_text(text, encoding="utf-8")
        return self._path


def _shown(value: Any) -> Any:
    return without_escapes(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _shortened(case: Case) -> Case:
    known: dict[str, Any] = {name: case.fields[name] for name in ("name", "tags") if name in case.fields}
    return replace(case, fields={**shown(case), **known})


def _hash(text: str) -> str:
    """For the content security policy: only these very bytes may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _bars(counts: list[int]) -> list[tuple[int, int]]:
    """(count, height in percent) of each bin."""
    top = max(counts) or 1
    return [(n, round(100 * n / top)) for n in counts]


def _chart(limiter: LimiterPart) -> dict[str, Any]:
    """Bars of releases per minute, and the request rate's line where there is one; in percent of the highest."""
    slots = limiter.timeline
    # below none where what earlier stretches released was given back
    per_minute = [60 * max(0, slot.released) / slot.span_s for slot in slots]
    rates = [slot.rate.get("requests") for slot in slots]
    top = max([*per_minute, *(rate for rate in rates if rate is not None)], default=0.0) or 1.0
    start, end = slots[0].at, slots[-1].at + slots[-1].span_s
    bars = [
        {
            "x": 1000 * (slot.at - start) / (end - start),
            "width": 1000 * slot.span_s / (end - start),
            "height": 100 * n / top,
            "own": 100 * n / top * max(0, slot.released_for_this_run) / max(1, slot.released),
            "rate": None if rate is None else 100 * rate / top,
            "slot": slot,
            "per_minute": n,
        }
        for slot, n, rate in zip(slots, per_minute, rates, strict=True)
    ]
    return {"bars": bars, "top": top, "seconds": end - start}


def _row(case: Case, record: Record | None, metrics: list[str]) -> dict[str, Any]:
    results = {m.name: m for m in record.metrics} if record else {}
    kinds = set()
    if not record or record.ending is not Ending.SCORED or any(m.score is None for m in results.values()):
        kinds.add("problem")
    if any(m.score is not None and not m.passed for m in results.values()):
        kinds.add("failed")
    return {
        "name": case.name,
        "place": case.place,
        "tags": case.tags,
        "status": record.ending.value if record else "missing",
        "kinds": " ".join(sorted(kinds)) or "passed",
        "reason": record.reason if record else "no outcome",
        "texts": {name: text for name, text in case.fields.items() if name not in ("name", "tags")},
        "cells": [results.get(name) for name in metrics],
        "duration_s": record.duration_s if record else 0.0,
        "calls": record.usage.judge_calls if record else 0,
        "worker": record.worker if record else "",
        "delivery": record.delivery if record else 0,
    }
