"""Child processes whose CPU time and memory are measured, and the lexical judge to run them against."""

import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Spent:
    """What one child process took, from start to end."""

    wall_s: float
    cpu_s: float
    rss_mb: float  # peak
    code: int
    out: str


LOOK_S = 0.3
ROOT = Path(__file__).parents[1]  # where `python -m loadtest.…` finds its modules


def surroundings(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child process that finds this project's modules from any folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **(more or {})}


def run(command: Sequence[str], *, environment: dict[str, str] | None = None, cwd: Path | None = None) -> Spent:
    """`wait4` returns what this one child used, whatever else runs."""
    with tempfile.TemporaryFile("w+") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=surroundings(environment),
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


class Family:
    """The most memory that processes and their children held together, while it is entered: each that lives at its own peak so far."""

    def __init__(self, *pids: int) -> None:
        self._pids = pids
        self._most_mb = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def rss_mb(self) -> float:
        return self._most_mb

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_S):
            self._most_mb = max(self._most_mb, sum(_peak_mb(pid) for pid in self.members()))

    def cpu_s(self) -> float:
        """Of all that run now, with the children that they have waited for."""
        return sum(_cpu_s(pid) for pid in self.members())

    def members(self) -> list[int]:
        return [one for pid in self._pids for one in _with_children(pid)]


def _with_children(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in _with_children(int(child)))]


def _cpu_s(pid: int) -> float:
    try:
        # after the name, which may hold anything: user, system, and both of children that were waited for
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def _peak_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(line.split()[1]) / 1024


def own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
