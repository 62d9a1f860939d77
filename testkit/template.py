"""The tests' own template: one process that has imported everything, from which each command of a test is forked.

A command is what it is otherwise, a process with its own arguments, environment, folder and streams. Only the second or two of
imports are paid once. `python -m testkit.template FD` is the template itself, which answers at the socket FD.
"""

import atexit
import gc
import importlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO

from queue_eval.local.forks import ForkedProcess, Template
from queue_eval.local.template import serve
from testkit.measured import ROOT

ARM = "--arm"  # before a command: three arguments of testkit.signalled


class Forked(ForkedProcess):
    """The part of `subprocess.Popen` that tests use. Files take the output: the command never waits for a reader."""

    def __init__(self, template: Template, pid: int, stdout: IO[str], stderr: IO[str]) -> None:
        super().__init__(template, pid)
        self._output = (stdout, stderr)
        for stream in self._output:
            weakref.finalize(self, stream.close)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        texts = []
        for stream in self._output:
            stream.seek(0)
            texts.append(stream.read())
        return texts[0], texts[1]


def forked(
    arguments: list[str], *, cwd: Path, environment: Mapping[str, str], stdin: str | None = None, arm: tuple[str, ...] = ()
) -> Forked:  # fmt: skip
    stdout, stderr = _output(), _output()
    with tempfile.TemporaryFile("w+") as given:
        given.write(stdin or "")
        given.flush()
        given.seek(0)
        words = [ARM, *arm, *arguments] if arm else arguments
        streams = (given.fileno(), stdout.fileno(), stderr.fileno())
        process = _template().start(words, environment=environment, streams=streams, cwd=cwd)
    assert process, "the tests' template has ended"
    return Forked(_template(), process.pid, stdout, stderr)


def _output() -> IO[str]:
    return tempfile.TemporaryFile("w+", encoding="utf-8")  # Forked closes it


@cache
def _template() -> Template:
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "testkit.template", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))},
    )
    theirs.close()
    process.returncode = 0  # Template waits for it
    template = Template(ours, process.pid, answer_within_s=60)  # it imports everything first
    atexit.register(template.__exit__)
    return template


def _command() -> None:
    """In a fork: what `python -m queue_eval` does, in its folder and with the modules of its PYTHONPATH."""
    from queue_eval.cli.main import main
    from testkit import signalled

    folders = [str(Path.cwd()), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.path[:0] = folders
    if any((Path(folder) / "sitecustomize.py").exists() for folder in folders):
        sys.modules.pop("sitecustomize", None)
        importlib.import_module("sitecustomize")
    if sys.argv[1:2] == [ARM]:
        signalled.arm(signal.Signals[sys.argv[2]], sys.argv[3], int(sys.argv[4]))
        del sys.argv[1:5]
    main()


if __name__ == "__main__":
    from queue_eval.cli.template import import_worker
    from testkit import signalled  # noqa: F401 - imported before the forks

    import_worker()
    gc.collect()
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])), _command)
