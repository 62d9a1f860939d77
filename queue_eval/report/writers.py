"""Every form of the report, in the order in which they are published."""

from pathlib import Path

from queue_eval.core.manifest import Manifest
from queue_eval.report.html import HtmlReport
from queue_eval.report.junit import JUnit
from queue_eval.report.markdown import Summary
from queue_eval.report.rows import CsvTable, JsonLines
from queue_eval.report.testrun import DeepEvalTestRun

Form = JsonLines | CsvTable | JUnit | DeepEvalTestRun | HtmlReport | Summary


def all_writers(folder: Path, manifest: Manifest) -> list[Form]:
    judge = manifest.settings.judge
    price = judge.token_price
    metrics = [spec.name for spec in manifest.settings.specs]
    return [
        JsonLines(folder, price),
        CsvTable(folder, metrics, price),
        JUnit(folder, metrics),
        DeepEvalTestRun(folder, judge.model, price),
        Summary(folder),
        HtmlReport(folder, metrics),
    ]
