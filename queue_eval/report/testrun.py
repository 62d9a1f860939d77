"""deepeval-test-run.json: DeepEval's own TestRun, written as a stream. A contract test loads it with DeepEval."""

import json
from collections import defaultdict
from pathlib import Path
from typing import IO, Any

from queue_eval.core.case import Case
from queue_eval.core.price import Price
from queue_eval.core.record import MetricResult, Record
from queue_eval.core.report import Report
from queue_eval.report.escape import for_json_line

_CAMEL = {
    "actual_output": "actualOutput",
    "expected_output": "expectedOutput",
    "retrieval_context": "retrievalContext",
    "tools_called": "toolsCalled",
    "expected_tools": "expectedTools",
    "expected_outcome": "expectedOutcome",
    "user_description": "userDescription",
}
_KEPT = frozenset(("input", "context", "comments", "tags", "metadata", "scenario", *_CAMEL))


class DeepEvalTestRun:
    name = "deepeval-test-run.json"

    def __init__(self, folder: Path, judge: str, price: Price | None) -> None:
        self._folder = folder
        self._judge = judge
        self._price = price
        self._single = (folder / "testrun.single").open("w+", encoding="utf-8")
        self._conversations = (folder / "testrun.conversations").open("w+", encoding="utf-8")
        self._scores: dict[str, dict[str, Any]] = defaultdict(
            lambda: {"scores": [], "passes": 0, "fails": 0, "errors": 0}
        )
        self._passed = self._failed = self._order = 0

    def add(self, case: Case, record: Record | None) -> None:
        if record is None:
            return
        file = self._conversations if case.kind == "conversational" else self._single
        body = {_CAMEL.get(key, key): value for key, value in case.fields.items() if key in _KEPT}
        body |= {
            "name": case.name,
            "order": self._order,
            "success": all(m.passed for m in record.metrics) and bool(record.metrics),
            "metricsData": [self._metric(m) for m in record.metrics],
            "runDuration": record.duration_s,
            "evaluationCost": self._price.cost_usd(record.usage) if self._price else None,
        }
        if case.kind == "conversational":
            body["turns"] = [
                {"order": n, "role": t["role"], "content": t["content"]} for n, t in enumerate(case.fields["turns"])
            ]
        self._order += 1
        self._passed += body["success"]
        self._failed += not body["success"]
        file.write(for_json_line(json.dumps(body, ensure_ascii=False)) + "\n")

    def _metric(self, metric: MetricResult) -> dict[str, Any]:
        tally = self._scores[metric.name]
        if metric.score is None:
            tally["errors"] += 1
        else:
            tally["scores"].append(metric.score)
            tally["passes" if metric.passed else "fails"] += 1
        return {
            "name": metric.name,
            "threshold": metric.threshold,
            "success": bool(metric.passed),
            "score": metric.score,
            "reason": metric.reason,
            "strictMode": False,
            "evaluationModel": self._judge,
            "error": metric.error,
            "evaluationCost": self._price.cost_usd(metric.usage) if self._price else None,
            "inputTokenCount": metric.usage.input_tokens,
            "outputTokenCount": metric.usage.output_tokens,
        }

    def finish(self, report: Report) -> Path:
        path = self._folder / self.name
        with path.open("w", encoding="utf-8") as file:
            file.write('{"testCases": [')
            _copy_list(self._single, file)
            file.write('], "conversationalTestCases": [')
            _copy_list(self._conversations, file)
            rest = {
                "metricsScores": [{"metric": name, **tally} for name, tally in sorted(self._scores.items())],
                "identifier": report.run_id,
                "testPassed": self._passed,
                "testFailed": self._failed,
                "runDuration": report.elapsed_s,
                "evaluationCost": report.accounting.cost_usd,
            }
            file.write("], " + json.dumps(rest)[1:] + "\n")
        return path


def _copy_list(source: IO[str], target: IO[str]) -> None:
    source.seek(0)
    for n, line in enumerate(source):
        target.write((", " if n else "") + line.rstrip("\n"))
    source.close()
