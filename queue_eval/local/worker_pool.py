"""The worker processes of a run on one machine."""

import errno
import os
import signal
from contextlib import suppress
from pathlib import Path

from queue_eval.core.errors import (
    EXIT_ABORTED,
    EXIT_DRAINED,
    EXIT_INTERRUPTED,
    ConfigError,
    StoreError,
    UnavailableError,
)
from queue_eval.local.child import Child, end
from queue_eval.local.starter import WorkerStarter

_DONE = (EXIT_DRAINED, EXIT_ABORTED, EXIT_INTERRUPTED)
_HOPELESS = (
    ConfigError.exit_code,
    StoreError.exit_code,
    UnavailableError.exit_code,
)  # another process would end the same way
DEATHS_PER_WORKER = 3  # without a case that was begun since: another process would die the same way


class WorkerPool:
    """Starts the workers, replaces those that crash, and knows when no other will help."""

    def __init__(self, starter: WorkerStarter, size: int) -> None:
        self._starter = starter
        self._size = size
        self._members: list[tuple[Child, Path | None]] = []
        self._missing = 0  # that are yet to be started
        self._deaths = 0  # since a case was begun
        self._executions = 0
        self._leaving = False  # no worker is replaced any more
        self.codes: list[int] = []  # of those that have ended and were not replaced
        self.crashed: list[int] = []  # pids of those that have ended in no orderly way
        self.failure: str | None = None
        self.failure_code: int | None = None

    def start(self) -> None:
        self._missing = self._size
        self._fill()

    def supervise(self, executions: int | None = None) -> None:
        """Takes the ended ones out and replaces the crashed.

        `executions`: begun in the run so far, where that is known.

        A case that kills its workers is dead after three of them, so deaths that come with executions have an end.

        """
        if executions not in (None, self._executions):
            self._executions, self._deaths = executions, 0
        for member in list(self._members):
            process, log = member
            code = process.poll()
            if code is None:
                continue
            self._members.remove(member)
            if code in _DONE or self._leaving:
                self.codes.append(code)
                self._missing = 0  # the run is over, or this process is stopping
                continue
            self._deaths += 1
            self.crashed.append(process.pid)
            if code in _HOPELESS or self._deaths > self._size * DEATHS_PER_WORKER:
                self.failure_code = code
                self.failure = _last_words(log) or f"a worker ended with exit code {code}; see {log or 'above'}"
            else:
                self._missing += 1
        if not self.failure:
            self._fill()

    def _fill(self) -> None:
        """Start those that are missing. Where there can be no other process the others do the work until there can."""
        try:
            while self._missing:
                self._members.append(self._starter.start())
                self._missing -= 1
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENOMEM):
                raise
            if not self._members:
                self.failure_code = os.EX_OSERR
                self.failure = (
                    f"no worker process can be started: {error.strerror}; free memory, or allow more processes"
                )

    @property
    def alive(self) -> int:
        return len(self._members)

    @property
    def pids(self) -> list[int]:
        return [process.pid for process, _ in self._members]

    def stop(self) -> None:
        self._leaving, self._missing = True, 0
        for process, _ in self._members:
            process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        for process, _ in self._members:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)

    def end(self, within_s: float) -> None:
        """All of them are gone afterwards."""
        self.stop()
        for process, _ in self._members:
            end(process, within_s=within_s)
        self._members.clear()


def _last_words(log: Path | None) -> str:
    """Return the last line of a worker's log that begins with queue-eval:."""
    if log is None:
        return ""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    messages = [line.removeprefix("queue-eval: ") for line in lines if line.startswith("queue-eval: ")]
    return messages[-1] if messages else ""
