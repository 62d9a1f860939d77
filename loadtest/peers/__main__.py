"""Ours beside what teams use today: the same cases, judge and machine, in one run.

    python -m loadtest.peers [--short] [--only NAME …]        # needs `make .venv/loadtest`

Three scenes for each: a judge that takes 200 ms and never refuses; one that admits 20 calls a second; and a SIGKILL to
everything that evaluates when half of the calls were asked, after which it is started again. Cases per second are those of
the time from the judge's first call to its last answer, CPU is the slope between a quarter of the cases and all, so that
start-up counts in neither. Each has the settings that suit the scene best:
see contestants.py. `--short` takes 24 cases times a contestant's `times`, fewer than may be in flight for most, and the second and third scene with ours
alone, the third with 96. Writes loadtest/out/peers.json.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.paced import CALLS_OF_A_CASE, ROUNDS, Paced, paced, write_paced
from loadtest.peers.contestants import CONTESTANTS, OURS, Command, Contestant, Place, environment
from loadtest.ranges import RANGES, check, written
from testkit.measured import Family, surroundings
from testkit.redis_server import serving
from testkit.waiting import wait_until
from testkit.workload import write_eval

LATENCY_S = 0.2
CALLS_PER_MINUTE, WINDOW_S = 1200, 1.0
LEAVE_S = 10.0  # after SIGTERM
IDLE_S = 120.0  # nothing was asked or scored for so long: it is over
CASES, SHORT_CASES, SHORT_KILLED = 160, 24, 96
START_S = 60.0  # for its first call


@dataclass(frozen=True)
class Seen:
    wall_s: float
    cpu_s: float
    rss_mb: float
    out: str


@dataclass(frozen=True)
class Scene:
    place: Place
    judge: Paced
    cases: int

    def calls(self) -> int:
        return int(self.judge.stats()["requests"])

    def judged_s(self) -> float:
        """From the second call's arrival to the last one's answer: ours asks first whether the judge is there, and starts its workers then."""
        _, *arrivals = self.judge.stats()["arrivals"]
        return float(arrivals[-1] - arrivals[0]) + LATENCY_S


@contextmanager
def scene(cases: int, *, per_minute: float = 0.0, resumes: bool = False) -> Iterator[Scene]:
    # what a killed contestant still writes is no reason to fail
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, serving() as server:
        folder = Path(name)
        spent = write_paced(folder, [ROUNDS * LATENCY_S] * cases, [1.0] * cases)
        with paced(spent, per_minute=per_minute, window_s=WINDOW_S) as judge:
            limits = {"requests_per_minute": per_minute, "window_s": WINDOW_S} if per_minute else {}
            write_eval(folder, judge={"type": "openai", "model": "m", "base_url": judge.url}, limits=limits)
            calls_per_s = per_minute / 60
            place = Place(folder=folder, redis_url=server.url, calls_per_s=calls_per_s, resumes=resumes)
            yield Scene(place, judge, cases)


class Running:
    """A contestant's processes, from start to end."""

    def __init__(self, at: Scene, commands: list[Command]) -> None:
        self._started = time.monotonic()
        around = surroundings(environment(at.judge.url, at.place))
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the processes
        self._processes = [
            subprocess.Popen(command, cwd=at.place.folder, env=around, stdout=self._out, stderr=self._out)
            for command in commands
        ]
        self.family = Family(*(process.pid for process in self._processes))

    def ended(self) -> bool:
        """Looks without reaping: what a process used is reported once."""
        look = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return all(os.waitid(os.P_PID, process.pid, look) for process in self._processes)

    def kill(self) -> None:
        for pid in reversed(self.family.members()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _leave(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
        with contextlib.suppress(AssertionError):
            wait_until(self.ended, within_s=LEAVE_S)
        self.kill()  # who does not leave

    def end(self, done_at: float | None) -> Seen:
        """CPU time with that of the children. `done_at`: when it had done all, though it goes on."""
        wall_s = (done_at or time.monotonic()) - self._started
        by_itself = self.ended()
        cpu_s = 0.0 if by_itself else self.family.cpu_s()
        self._leave()
        for process in self._processes:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            cpu_s += usage.ru_utime + usage.ru_stime if by_itself else 0.0
        with self._out:
            self._out.seek(0)
            return Seen(wall_s, cpu_s, self.family.rss_mb, self._out.read())


def worked(one: Contestant, at: Scene, commands: list[Command], *, until_calls: int | None = None) -> Seen:
    """Until everything is scored, the processes have ended, nothing happens any more, or so many calls were asked: then it is killed."""
    running = Running(at, commands)
    with running.family:
        seen = at_first = (one.scored(at.place), at.calls())
        last, done_at = time.monotonic(), None
        while not running.ended() and time.monotonic() - last < (IDLE_S if seen != at_first else START_S):
            if (now_seen := (one.scored(at.place), at.calls())) != seen:
                seen, last = now_seen, time.monotonic()
            scored, calls = seen
            if until_calls is not None and calls >= until_calls:
                running.kill()
                break
            if scored == at.cases and (at.place.resumes or not one.ends):
                done_at = time.monotonic()
                break
            time.sleep(0.1)
        return running.end(done_at)


def unlimited(one: Contestant, cases: int) -> dict[str, Any]:
    seen = []
    for count in (one.times * cases // 4, one.times * cases):
        with scene(count) as at:
            one.enqueue(at.place)
            seen.append(worked(one, at, one.commands(at.place)))
            if one.scored(at.place) != count:
                raise SystemExit(f"{one.name}: scored {one.scored(at.place)} of {count}: {seen[-1].out[-3000:]}")
            judged_s = at.judged_s()
    few, many = seen
    more = one.times * cases - one.times * cases // 4
    return {
        "cases_per_s": round(one.times * cases / judged_s, 2),
        "cpu_ms_per_case": round(1000 * (many.cpu_s - few.cpu_s) / more, 1),
        "rss_mb": round(many.rss_mb),
    }


def limited(one: Contestant, cases: int) -> dict[str, Any]:
    with scene(cases, per_minute=CALLS_PER_MINUTE) as at:
        one.enqueue(at.place)
        seen = worked(one, at, one.commands(at.place))
        return {
            "cases": cases,
            "unscored": cases - one.scored(at.place),
            "count_429": len(at.judge.stats()["refused_at"]),
            "wall_s": round(seen.wall_s, 1),
            "bound_s": round(CALLS_OF_A_CASE * cases / CALLS_PER_MINUTE * 60, 1),
        }


def killed(one: Contestant, cases: int) -> dict[str, Any]:
    with scene(cases, resumes=True) as at:
        one.enqueue(at.place)
        worked(one, at, one.commands(at.place), until_calls=CALLS_OF_A_CASE * cases // 2)
        kept, asked = one.scored(at.place), at.calls()
        again = worked(one, at, (one.again or one.commands)(at.place))
        return {
            "cases": cases,
            "scored_before_the_kill": kept,
            "unscored_after_restart": cases - one.scored(at.place),
            "wall_s_after_restart": round(again.wall_s, 1),
            "calls": at.calls(),
            "calls_before_the_kill": asked,
            "calls_needed": CALLS_OF_A_CASE * cases,
        }


def measured(*, short: bool, only: list[str] | None = None) -> list[dict[str, Any]]:
    cases = SHORT_CASES if short else CASES
    found = []
    for one in CONTESTANTS:
        if only and one.name not in only:
            continue
        scenes = {}
        if one is OURS or not short:
            scenes = {"limited": limited(one, cases), "killed": killed(one, SHORT_KILLED if short else cases)}
        row = {"name": one.name, **unlimited(one, cases), **scenes}
        print(json.dumps(row), flush=True)
        found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        choices=[one.name for one in CONTESTANTS],
        help=", ".join(one.name for one in CONTESTANTS),
    )
    args = parser.parse_args()
    found = measured(short=args.short, only=args.only)
    written("peers", found)
    sys.exit(check(RANGES, {"peers": found}, only=["peers"], partly=bool(args.only)))


if __name__ == "__main__":
    main()
