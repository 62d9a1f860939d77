"""Child processes whose CPU time and memory are measured, and the lexical judge to run them against."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Spent:
    """What one child process took, from start to end."""

    wall_s: float
    cpu_s: float
    rss_mb: float  # peak
    code: int
    out: str


ROOT = Path(__file__).parents[1]  # where `python -m loadtest.…` finds its modules


def run(command: Sequence[str], *, environment: dict[str, str] | None = None, cwd: Path | None = None) -> Spent:
    """`wait4` tells what this one child used, whatever else runs."""
    with tempfile.TemporaryFile("w+") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
            cwd=cwd,
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        return Spent(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, process.returncode, output.read())


@contextmanager
def judge(latency_ms: float) -> Iterator[str]:
    """`queue-eval judge` in a process of its own; its base URL."""
    command = [sys.executable, "-m", "queue_eval", "judge", "--port", "0", "--latency-ms", str(latency_ms)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
