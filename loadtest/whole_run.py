"""A whole `queue-eval run` in processes of its own, and what can be seen of it from outside."""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from testkit.measured import Family, surroundings


@dataclass(frozen=True)
class Span:
    """One scored case."""

    case: str
    worker: str
    started_at: float
    ended_at: float


@dataclass(frozen=True)
class WholeRun:
    wall_s: float  # from the command to its end: with start-up, enqueueing and the report
    rss_mb: float  # of all its processes together
    spans: list[Span]


def whole_run(eval_yaml: Path, *, workers: int, concurrency: int) -> WholeRun:
    """SystemExit with the run's own words when it does not pass."""
    command = [sys.executable, "-m", "queue_eval", "run", str(eval_yaml), "--run-id", "measured"]
    command += ["--workers", str(workers), "--concurrency", str(concurrency), "--store", "runs"]
    with tempfile.TemporaryFile("w+") as out:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=eval_yaml.parent, env=surroundings())
        with Family(process.pid) as family:
            process.wait()
            wall_s = time.monotonic() - started
        if process.returncode:
            out.seek(0)
            raise SystemExit(f"the run ended with {process.returncode}: {out.read()[-2000:]}")
    return WholeRun(wall_s, family.rss_mb, spans(eval_yaml.parent / "runs" / "measured"))


def spans(folder: Path) -> list[Span]:
    """Of the scored cases of the run whose objects lie here."""
    rows = [json.loads(path.read_bytes()) for path in (folder / "results").glob("*.json")]
    return [Span(row["name"], row["worker"], row["started_at"], row["ended_at"]) for row in rows]


def makespan_s(found: list[Span]) -> float:
    """From the first case's start to the last one's end."""
    return max(span.ended_at for span in found) - min(span.started_at for span in found)


def occupancy(found: list[Span], *, first: float, until_s: float, steps: int = 300) -> list[tuple[float, float]]:
    """(seconds after `first`, cases in flight) for so many seconds."""
    times = [first + until_s * n / steps for n in range(steps + 1)]
    return [(at - first, float(sum(span.started_at <= at < span.ended_at for span in found))) for at in times]
