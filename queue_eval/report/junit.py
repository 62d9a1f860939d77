"""junit.xml: the gate as tests that fail where it does, and every case with its scores as tests that never fail.

A CI system that reads one failure as a failed build must not stop a run that passed its gate.
"""

from collections import Counter
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from queue_eval.core.case import Case
from queue_eval.core.errors import EXIT_FAILED
from queue_eval.core.gate import Verdict
from queue_eval.core.record import MetricResult, Record
from queue_eval.core.report import Report
from queue_eval.report.escape import for_xml


class JUnit:
    name = "junit.xml"

    def __init__(self, folder: Path, metrics: list[str]) -> None:
        self._folder = folder
        self._body_path = folder / "junit.body"
        self._body = self._body_path.open("w", encoding="utf-8")
        self._metrics = metrics
        self._tests = self._skipped = 0
        self._names: Counter[str] = Counter()

    def add(self, case: Case, record: Record | None) -> None:
        results = {m.name: m for m in record.metrics} if record else {}
        name = self._unique(case.name)
        file, _, line = case.place.rpartition(":")
        place = f"file={_attribute(file)} line={_attribute(line)}" if file else f"file={_attribute(case.place)}"
        for metric in self._metrics:
            result = results.get(metric)
            seconds = result.duration_s if result else 0.0
            self._tests += 1
            self._body.write(
                f'<testcase classname={_attribute(metric)} name={_attribute(name)} {place} time="{seconds:.3f}">'
            )
            if result is None or result.score is None:
                self._skipped += 1
                why = (result.error if result else None) or (record.reason if record else None) or "no outcome"
                self._body.write(f"<skipped message={_attribute(f'no score: {why[:200]}')}/>")
            else:
                self._body.write(_scored(result))
            self._body.write("</testcase>\n")

    def _unique(self, name: str) -> str:
        """Two tests of one name are one to most readers."""
        self._names[name] += 1
        nth = self._names[name]
        return name if nth == 1 else f"{name} ({nth})"

    def finish(self, report: Report) -> Path:
        self._body.close()
        path = self._folder / self.name
        gate, outcomes = _gate(report)
        failures, errors = outcomes["failure"], outcomes["error"]
        seconds = f'time="{report.elapsed_s:.3f}"'
        tests = len(gate) + self._tests
        with path.open("w", encoding="utf-8") as file, self._body_path.open(encoding="utf-8") as body:
            file.write('<?xml version="1.0" encoding="UTF-8"?>\n')
            file.write(
                f"<testsuites name={_attribute(report.run_id)}"
                f' tests="{tests}" failures="{failures}" errors="{errors}" {seconds}>\n'
            )
            counts = f'tests="{len(gate)}" failures="{failures}" errors="{errors}" skipped="{outcomes["skipped"]}"'
            file.write(f'<testsuite name="gate" {counts}>\n')
            file.writelines(gate)
            file.write("</testsuite>\n")
            counts = f'tests="{self._tests}" failures="0" errors="0" skipped="{self._skipped}"'
            file.write(f'<testsuite name="cases" {counts} {seconds}>\n')
            for line in body:
                file.write(line)
            file.write("</testsuite>\n</testsuites>\n")
        return path


def _scored(result: MetricResult) -> str:
    facts = {"score": f"{result.score:.6g}", "threshold": f"{result.threshold:g}", "passed": str(result.passed).lower()}
    properties = "".join(f'<property name="{name}" value="{value}"/>' for name, value in facts.items())
    reason = f"<system-out>{escape(for_xml(result.reason))}</system-out>" if result.reason else ""
    return f"<properties>{properties}</properties>{reason}"


def _gate(report: Report) -> tuple[list[str], Counter[str]]:
    """The gate's tests, and how many of them have which outcome."""
    outcomes: Counter[str] = Counter()

    def test(name: str, outcome: str | None, message: str) -> str:
        outcomes[outcome or "passed"] += 1
        inside = f"<{outcome} message={_attribute(message[:1000])}/>" if outcome else ""
        return f'<testcase classname="gate" name={_attribute(name)}>{inside}</testcase>\n'

    tests = []
    for check in report.gate.checks:
        fails = check.ok is False and report.exit_code == EXIT_FAILED
        outcome = None if check.ok else "failure" if fails else "skipped"
        value = "no value" if check.actual is None else f"{check.actual:.4f}"
        tests.append(test(check.name, outcome, f"{value}, bound {check.bound:g}"))
    unsure = "error" if report.verdict == Verdict.INCONCLUSIVE else None
    tests.append(test("the run is conclusive", unsure, "; ".join(report.gate.reasons)))
    return tests, outcomes


def _attribute(text: str) -> str:
    return quoteattr(for_xml(text))
