"""How a worker process begins: forked from the template, or where that cannot be, as a new interpreter."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from queue_eval.core.errors import StoreError
from queue_eval.local.child import Child, start
from queue_eval.local.forks import Template
from queue_eval.store.regular import OddFileError, must_be_folder, opened

_STANDARD_ERROR = 2  # sys.stderr is None where it is closed


class WorkerStarter:
    def __init__(
        self,
        run_id: str,
        options: Sequence[str],
        *,
        redis_url: str,
        environment: Mapping[str, str],
        logs: Path | None,
        template: Template | None,
    ) -> None:
        """`logs`: the folder of the workers' logs; None: they write to this process' standard error."""
        self._arguments = ["worker", run_id, *options]
        # by the environment: a URL may hold a password, and any local user can read command lines
        self._environment = {**environment, "QUEUE_EVAL_REDIS_URL": redis_url}
        self._logs = logs
        self._template = template
        self._started = 0

    def start(self) -> tuple[Child, Path | None]:
        """The process and its log."""
        if self._logs is None:
            return self._process(_STANDARD_ERROR), None
        log = self._logs / f"worker-{self._started + 1}.log"
        try:
            must_be_folder(self._logs)
            self._logs.mkdir(parents=True, exist_ok=True)
            output = opened(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        except OSError as error:
            remedy = "take it away" if isinstance(error, OddFileError) else "make it a place that this user can write"
            raise StoreError(
                f"{error.filename} {error.strerror}, so no worker's log can be there;"
                f" {remedy}, or choose another --store"
            ) from error
        try:
            process = self._process(output)
        finally:
            os.close(output)
        self._started += 1
        return process, log

    def _process(self, output: int) -> Child:
        return self._forked(output) or start(
            [*_interpreter(), "-m", "queue_eval", *self._arguments], output=output, environment=self._environment
        )

    def _forked(self, output: int) -> Child | None:
        if self._template is None:
            return None
        with Path(os.devnull).open("rb") as nothing:
            streams = (nothing.fileno(), output, output)
            return self._template.start(self._arguments, environment=self._environment, streams=streams)


def _interpreter() -> list[str]:
    """Return the command of an interpreter, whose path has the working directory only if ours has it.

    A file beside eval.yaml must not stand in for a module.
    """
    return [sys.executable] if {"", str(Path.cwd())} & set(sys.path) else [sys.executable, "-P"]
