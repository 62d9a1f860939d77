"""Seconds and memory to finalize stored results: every form of the report, written and synced.

python -m loadtest.finalize [--cases 5000 100000]
"""

import argparse
import asyncio
import gzip
import json
import sys
import tempfile
from pathlib import Path

from queue_eval.core import objects
from queue_eval.core.case import Case
from queue_eval.core.ending import Ending
from queue_eval.core.manifest import DatasetFacts, Manifest
from queue_eval.core.record import MetricResult, Record
from queue_eval.core.usage import Usage
from queue_eval.producer.producer import CHUNK_CASES
from testkit.measured import run

SHA256 = "0" * 64
SETTINGS = {
    "metrics": [{"type": f"{n}Metric", "name": n, "threshold": 0.5} for n in ("AnswerRelevancy", "Faithfulness")],
    "judge": {"type": "openai", "model": "m", "account": "default", "base_url": "http://127.0.0.1/v1"},
    "limits": {},
    "retry": {},
    "workers": {},
    "gate": {"mode": "block", "metrics": {}, "max_error_rate": 1.0, "min_coverage": 0.95},
    "labels": {},
}


def write_run(folder: Path, count: int) -> None:
    """A run as its workers leave it. Not synced: only the reading is measured."""
    (folder / "results").mkdir(parents=True)
    (folder / objects.chunk(SHA256, 0)).parent.mkdir(parents=True)
    chunk: list[bytes] = []
    for n in range(count):
        text = f"The parcel number {n} takes {n % 60} days. " * 8
        fields = {"input": f"How long takes number {n}?", "actual_output": text[:40], "retrieval_context": [text]}
        case = Case(case_id=f"{n:024x}", kind="single", fields=fields, place=f"c:{n}")
        chunk.append(case.to_json())
        metrics = tuple(
            MetricResult(
                name=m,
                threshold=0.5,
                score=n % 10 / 10,
                passed=n % 10 >= 5,
                reason=text[:200],
                duration_s=1.0,
                usage=Usage(3, 0, 900, 90),
            )
            for m in ("AnswerRelevancy", "Faithfulness")
        )
        record = Record(
            run_id="measured", case_id=case.case_id, ending=Ending.SCORED, execution="e-1", delivery=1, worker="w", started_at=n / 50, ended_at=n / 50 + 3, busy_s=2.5,
            metrics=metrics, usage=Usage(7, 0, 1800, 180), name=case.name, place=case.place,
        )  # fmt: skip
        (folder / objects.result(case.case_id)).write_bytes(record.to_json())
        if len(chunk) == CHUNK_CASES or n == count - 1:
            (folder / objects.chunk(SHA256, n // CHUNK_CASES)).write_bytes(gzip.compress(b"\n".join(chunk) + b"\n", 1))
            chunk = []
    facts = DatasetFacts(
        source="c", sha256=SHA256, cases=count, duplicates=0, chunks=-(-count // CHUNK_CASES), selection=""
    )
    manifest = Manifest(
        run_id="measured", identity="i", created_at=0.0, settings=SETTINGS, dataset=facts, metric_prompts_sha256="", commit_sha=None, labels={}, versions={}
    )  # fmt: skip
    (folder / objects.MANIFEST).write_bytes(manifest.to_json())


async def finalize(location: str) -> None:
    """In the child: the finalizer alone, its imports not counted."""
    import resource
    import time

    from queue_eval.wiring import stores, working

    store = stores.open_store(location, "measured")
    manifest = await stores.read_manifest(store, "measured", location)
    finalizer = working.build_finalizer(store, manifest)
    started = time.monotonic()
    report = await finalizer.finalize(manifest)
    seconds = time.monotonic() - started
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cases": report.accounting.scored, "finalize_s": round(seconds, 2), "rss_mb": round(rss_mb)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, nargs="+", default=[5000, 100_000])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        asyncio.run(finalize(args.child))
        return
    for count in args.cases:
        with tempfile.TemporaryDirectory() as name:
            write_run(Path(name) / "measured", count)
            spent = run([sys.executable, __file__, "--child", name])
            print(spent.out.strip())


if __name__ == "__main__":
    main()
