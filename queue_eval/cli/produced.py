"""What the commands print about the cases that were enqueued."""

from queue_eval.dataset.reader import CaseFile
from queue_eval.producer.producer import Produced


def produced_lines(produced: Produced, cases: CaseFile | None) -> list[str]:
    """Return what a person should know. `cases`: the file that they came from; None where they came from the store."""
    facts = produced.manifest.dataset
    lines = [
        f"run {produced.manifest.run_id}: {facts.cases} cases, {produced.enqueued} enqueued"
        + (f", {produced.stored} stored already" if produced.stored else "")
    ]
    if facts.duplicates:
        lines.append(f"{facts.duplicates} cases are identical to others; they are kept and counted apart")
    return lines + (cases.remarks if cases else [])
