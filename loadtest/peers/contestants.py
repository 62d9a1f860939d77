"""How each of them is started, on the cases of its working folder, and goes on after its processes were killed."""

import asyncio
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.paced import CALLS_OF_A_CASE
from loadtest.peers.judging import SCORED
from loadtest.stock_environment import stock_environment

IN_FLIGHT = 64  # for contestants that have a setting for it
PROCESSES = 8  # for those whose processes take one case at a time: on two cores more only wait for each other

Command = list[str]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one measurement happens."""

    folder: Path
    redis_url: str
    calls_per_s: float = 0.0  # that the judge admits; 0: any
    resumes: bool = False  # it will be killed, and should go on where it was


def _nothing(_: Place) -> None:
    """It needs no queue."""


def _lines(place: Place) -> int:
    path = place.folder / SCORED
    return len({line.partition(" ")[2] for line in path.read_text().splitlines()}) if path.exists() else 0


@dataclass(frozen=True, kw_only=True)
class Contestant:
    name: str
    commands: Callable[[Place], list[Command]]
    enqueue: Callable[[Place], None] = _nothing
    again: Callable[[Place], list[Command]] | None = None  # after a kill; None: the same once more
    scored: Callable[[Place], int] = _lines
    ends: bool = True  # by itself, when nothing is left
    times: int = 1  # so many times as many cases, where a small set would be over at once


def environment(judge_url: str, place: Place) -> dict[str, str]:
    """Patient where the judge refuses."""
    patient = {"DEEPEVAL_RETRY_MAX_ATTEMPTS": "20", "DEEPEVAL_RETRY_CAP_SECONDS": "10"} if place.calls_per_s else {}
    return {
        **patient,
        **stock_environment(place.folder),  # with a scene's own cache: cases are the same in all of them
        "PEER_JUDGE_URL": judge_url,
        "PEER_REDIS_URL": place.redis_url,
    }


def _python(*words: str) -> Command:
    return [sys.executable, *words]


def _ours(*words: str) -> list[Command]:
    shape = ["--workers", "1", "--concurrency", str(IN_FLIGHT), "--store", "runs"]
    return [_python("-m", "queue_eval", "run", *words, *shape)]


def _copy_tests(place: Place) -> None:
    """Away from this project's own settings for pytest."""
    shutil.copy(Path(__file__).with_name("cases_under_pytest.py"), place.folder / "test_cases.py")


def _under_pytest(place: Place) -> list[Command]:
    cached = ["-c"] if place.resumes else []
    return [[str(Path(sys.executable).with_name("deepeval")), "test", "run", "test_cases.py", "-n", "2", *cached]]


def _evaluate(place: Place) -> list[Command]:
    """Throttled to five sixths of what the judge admits; with its cache where it will have to go on."""
    throttle_s = 1.2 * CALLS_OF_A_CASE / place.calls_per_s if place.calls_per_s else 0.0
    return [_python("-m", "loadtest.peers.evaluate", str(IN_FLIGHT), str(throttle_s), str(int(place.resumes)))]


def _enqueue_rq(place: Place) -> None:
    from loadtest.peers import rq_worker

    rq_worker.enqueue(place.redis_url, place.folder)


def _rq(kind: str) -> Callable[[Place], list[Command]]:
    def commands(place: Place) -> list[Command]:
        ends = "waits" if place.resumes else "ends"
        return [_python("-m", "loadtest.peers.rq_worker", kind, place.redis_url, ends)] * PROCESSES

    return commands


def _enqueue_taskiq(place: Place) -> None:
    from loadtest.peers import taskiq_app

    asyncio.run(taskiq_app.enqueue(place.redis_url, place.folder))


def _taskiq(_: Place) -> list[Command]:
    tasks = ["--workers", "2", "--max-async-tasks", str(IN_FLIGHT // 2), "--log-level", "ERROR"]
    return [[str(Path(sys.executable).with_name("taskiq")), "worker", "loadtest.peers.taskiq_app:broker", *tasks]]


OURS = Contestant(
    name="queue-eval",
    commands=lambda _: _ours("eval.yaml", "--run-id", "measured"),
    again=lambda _: _ours("--resume", "measured"),
    times=10,
    scored=lambda place: len(list((place.folder / "runs" / "measured" / "results").glob("*.json"))),
)
CONTESTANTS: Sequence[Contestant] = (
    OURS,
    Contestant(
        name="deepeval.evaluate()",
        commands=_evaluate,
        times=4,
    ),
    Contestant(name="deepeval test run -n 2", commands=_under_pytest, enqueue=_copy_tests),
    Contestant(name=f"RQ, {PROCESSES} SimpleWorkers", commands=_rq("simple"), enqueue=_enqueue_rq),
    Contestant(name=f"RQ, {PROCESSES} Workers that fork", commands=_rq("fork"), enqueue=_enqueue_rq),
    Contestant(name="taskiq, 2 processes", commands=_taskiq, enqueue=_enqueue_taskiq, ends=False, times=4),
)
