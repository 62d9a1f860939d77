"""A crew where the machine allows no more processes."""

import errno
import os
from pathlib import Path

from queue_eval.core.errors import EXIT_DRAINED
from queue_eval.local.starter import WorkerStarter
from queue_eval.local.worker_pool import WorkerPool


class Process:
    def __init__(self) -> None:
        self.pid = 1
        self.code: int | None = None

    def poll(self) -> int | None:
        return self.code

    def wait(self, timeout: float | None = None) -> int:
        return self.code or 0

    def send_signal(self, sig: int) -> None: ...


class Full(WorkerStarter):
    """Two processes, and no third."""

    def __init__(self, logs: Path) -> None:
        super().__init__("r1", [], redis_url="", environment={}, logs=logs, template=None)
        self.made: list[Process] = []

    def _process(self, output: int) -> Process:
        if len(self.made) == 2:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self.made.append(Process())
        return self.made[-1]


def test_the_others_do_the_work_and_their_word_is_the_crews(tmp_path: Path) -> None:
    starter = Full(tmp_path)
    pool = WorkerPool(starter, 3)
    pool.start()
    for _ in range(100):
        pool.supervise()
    assert (pool.alive, pool.failure, len([*tmp_path.iterdir()])) == (2, None, 3)
    for process in starter.made:
        process.code = EXIT_DRAINED
        pool.supervise()
    assert (pool.alive, pool.codes, pool.failure) == (0, [EXIT_DRAINED] * 2, None)


def test_without_any_the_reason_is_reported(tmp_path: Path) -> None:
    starter = Full(tmp_path)
    starter.made = [Process(), Process()]
    pool = WorkerPool(starter, 1)
    pool.start()
    assert pool.failure_code == os.EX_OSERR
    assert "no worker process can be started" in (pool.failure or "")
