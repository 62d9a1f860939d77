"""The worker processes of a run on one machine."""

import os
import signal
import sys
from collections.abc import Mapping
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
from queue_eval.local.child import Child, end, start
from queue_eval.local.forks import Template

_DONE = (EXIT_DRAINED, EXIT_ABORTED, EXIT_INTERRUPTED)
_HOPELESS = (
    ConfigError.exit_code,
    StoreError.exit_code,
    UnavailableError.exit_code,
)  # another process would end the same way
DEATHS_PER_WORKER = 3  # without a case that was begun since: another process would die the same way


class Crew:
    """Starts the workers, replaces those that crash, and knows when no other will help."""

    def __init__(
        self,
        *,
        run_id: str,
        redis_url: str,
        store: str,
        size: int,
        concurrency: int | None,
        logs: Path,
        environment: Mapping[str, str],
        template: Template | None,
    ) -> None:
        """`template`: where workers are forked from; None where a fork is not safe, and each begins as a new interpreter."""
        self._arguments = ["worker", run_id, "--store", store]
        if concurrency:
            self._arguments += ["--concurrency", str(concurrency)]
        self._template = template
        # by the environment: a URL may hold a password, and everybody can read command lines
        self._environment = {**environment, "QUEUE_EVAL_REDIS_URL": redis_url}
        self._logs = logs
        self._size = size
        self._members: list[tuple[Child, Path]] = []
        self._started = 0
        self._deaths = 0  # since a case was begun
        self._executions = 0
        self._leaving = False  # nobody is replaced any more
        self.failure: str | None = None

    def start(self) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        for _ in range(self._size):
            self._add()

    def _add(self) -> None:
        self._started += 1
        log = self._logs / f"worker-{self._started}.log"
        self._members.append((self._forked(log) or self._spawned(log), log))

    def _forked(self, log: Path) -> Child | None:
        if self._template is None:
            return None
        with log.open("ab") as output, Path(os.devnull).open("rb") as nothing:
            streams = (nothing.fileno(), output.fileno(), output.fileno())
            return self._template.start(self._arguments, environment=self._environment, streams=streams)

    def _spawned(self, log: Path) -> Child:
        return start([sys.executable, "-m", "queue_eval", *self._arguments], log=log, environment=self._environment)

    def tend(self, executions: int | None = None) -> None:
        """Takes the ended ones out and replaces the crashed. `executions`: begun in the run so far, where that is known.

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
                continue
            words = _last_words(log)
            self._deaths += 1
            if code in _HOPELESS or self._deaths > self._size * DEATHS_PER_WORKER:
                self.failure = words or f"a worker ended with exit code {code}; see {log}"
            else:
                self._add()

    @property
    def alive(self) -> int:
        return len(self._members)

    @property
    def pids(self) -> list[int]:
        return [process.pid for process, _ in self._members]

    def stop(self) -> None:
        self._leaving = True
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


def _last_words(log: Path) -> str:
    """What a worker said before it gave up: its last line that begins with queue-eval:."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    said = [line.removeprefix("queue-eval: ") for line in lines if line.startswith("queue-eval: ")]
    return said[-1] if said else ""
