"""junit.xml: one test per case and metric, as CI systems show them."""

from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from queue_eval.core.case import Case
from queue_eval.core.record import Record
from queue_eval.core.report import Report
from queue_eval.report.escape import for_xml


class JUnit:
    name = "junit.xml"

    def __init__(self, folder: Path, metrics: list[str]) -> None:
        self._folder = folder
        self._body_path = folder / "junit.body"
        self._body = self._body_path.open("w", encoding="utf-8")
        self._metrics = metrics
        self._tests = self._failures = self._errors = 0

    def add(self, case: Case, record: Record | None) -> None:
        results = {m.name: m for m in record.metrics} if record else {}
        for metric in self._metrics:
            self._tests += 1
            result = results.get(metric)
            seconds = result.duration_s if result else 0.0
            self._body.write(
                f'<testcase classname={_attribute(metric)} name={_attribute(case.name)} file={_attribute(case.place)} time="{seconds:.3f}">'
            )
            if result is None or result.score is None:
                self._errors += 1
                why = (result.error if result else None) or (record.reason if record else None) or "no outcome"
                self._body.write(f"<error message={_attribute(why[:200])}/>")
            elif not result.passed:
                self._failures += 1
                message = f"score {result.score:.3f}, threshold {result.threshold:g}"
                self._body.write(
                    f"<failure message={_attribute(message)}>{escape(for_xml(result.reason or ''))}</failure>"
                )
            self._body.write("</testcase>\n")

    def finish(self, report: Report) -> Path:
        self._body.close()
        path = self._folder / self.name
        with path.open("w", encoding="utf-8") as file, self._body_path.open(encoding="utf-8") as body:
            counts = f'tests="{self._tests}" failures="{self._failures}" errors="{self._errors}" time="{report.elapsed_s:.3f}"'
            file.write(
                f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites {counts}>\n<testsuite name={_attribute(report.run_id)} {counts}>\n'
            )
            for line in body:
                file.write(line)
            file.write("</testsuite>\n</testsuites>\n")
        return path


def _attribute(text: str) -> str:
    return quoteattr(for_xml(text))
