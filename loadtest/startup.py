"""Start of a run and of a worker, memory of a pool, CPU of light commands.

python -m loadtest.startup [--tree DIR]

--tree: another checkout of the project, measured by this script. Redis is left out of the memory.
"""

import argparse
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from testkit.measured import ROOT, Family, Spent, run
from testkit.provider.server import Provider
from testkit.redis_server import serving
from testkit.waiting import wait_until
from testkit.workload import write_cases, write_eval

CASES = 400
CREWS = (1, 4, 8)
TIMES = 5
JUDGE_TAKES_S = 0.5
LIGHT = ("--help", "--version", "status r1", "tune r1 --rpm 600", "abort r1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, default=ROOT)
    args = parser.parse_args()
    os.environ["PYTHONPATH"] = str(args.tree.resolve())
    print(json.dumps(measured(), indent=2))


def measured() -> dict[str, Any]:
    return {
        "first_call_after_the_command_s": _median(_first_call_s),
        "a_replaced_workers_first_call_after_its_start_s": _median(_replaced_s),
        "pss_mb": {workers: round(_pss_mb(workers)) for workers in CREWS},
        "cpu_s": _light_commands(),
    }


def _median(measure: Callable[[], float]) -> float:
    return round(statistics.median(measure() for _ in range(TIMES)), 2)


@contextmanager
def _run(workers: int, concurrency: int) -> "Iterator[tuple[subprocess.Popen[bytes], Provider, float]]":
    """A whole run as a user starts it, ended when the block is; and when the command was given."""
    provider = Provider(latency=lambda: JUDGE_TAKES_S, keep_bodies=False).start()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cases(folder / "cases.jsonl", CASES)
        path = write_eval(folder, judge={"type": "openai", "model": "m", "base_url": provider.url})
        command = [sys.executable, "-m", "queue_eval", "run", str(path), "--workers", str(workers)]
        command += ["--concurrency", str(concurrency), "--store", str(folder / "runs")]
        given_at = time.monotonic()
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield process, provider, given_at
        finally:
            for _ in range(2):
                process.send_signal(signal.SIGTERM)
                time.sleep(0.2)
            process.wait()
            provider.close()


def _first_call_s() -> float:
    """Of a case: the call before it is the producer's, which asks whether the judge serves at all."""
    with _run(workers=4, concurrency=4) as (_, provider, given_at):
        wait_until(lambda: provider.requests >= 2, within_s=60)
        return time.monotonic() - given_at


def _replaced_s() -> float:
    """From the start of the process, by the kernel's account, to its first request."""
    with _run(workers=1, concurrency=1) as (process, provider, _):
        wait_until(lambda: provider.requests >= 5, within_s=60)
        (worker,) = _workers(process)
        os.kill(worker, signal.SIGKILL)
        time.sleep(0.02)  # what it had on its way has arrived
        before = provider.requests
        wait_until(lambda: provider.requests > before, within_s=60)
        (worker,) = _workers(process)
        return time.clock_gettime(time.CLOCK_BOOTTIME) - _started_at(worker)


def _workers(process: "subprocess.Popen[bytes]") -> list[int]:
    return [
        pid for pid in Family(process.pid).members()[1:] if b"worker\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def _started_at(pid: int) -> float:
    """Seconds since the machine began."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return ticks / os.sysconf("SC_CLK_TCK")


def _pss_mb(workers: int) -> float:
    """Of all processes of a run while each worker has 16 cases in flight; what they share is counted once."""
    with _run(workers=workers, concurrency=16) as (process, provider, _):
        wait_until(lambda: provider.requests >= 40 * workers, within_s=120)
        return sum(_pss_of_mb(pid) for pid in Family(process.pid).members())


def _pss_of_mb(pid: int) -> float:
    if b"redis-server" in Path(f"/proc/{pid}/cmdline").read_bytes():
        return 0.0
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in rollup if line.startswith("Pss:")) / 1024


def _light_commands() -> dict[str, float]:
    with serving() as server, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cases(folder / "cases.jsonl", 2)
        path = write_eval(folder, limits={"requests_per_minute": 600})
        environment = {"PYTHONPATH": os.environ["PYTHONPATH"], "QUEUE_EVAL_REDIS_URL": server.url}
        command = [sys.executable, "-m", "queue_eval"]
        _good(run([*command, "enqueue", str(path), "--run-id", "r1"], environment=environment, cwd=folder))
        found = {}
        for words in LIGHT:
            spent = [run([*command, *shlex.split(words)], environment=environment, cwd=folder) for _ in range(TIMES)]
            found[words] = round(statistics.median(_good(one).cpu_s for one in spent), 2)
        return found


def _good(spent: Spent) -> Spent:
    if spent.code:
        raise SystemExit(spent.out)
    return spent


if __name__ == "__main__":
    main()
