"""Processes forked from the template, as the process that asked for them sees them."""

import gc
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from queue_eval.local.child import die_with_parent
from queue_eval.local.template import Main, receive, send, serve

END_WITHIN_S = 5.0


class Template:
    """Asks the template process for children. One thread at a time."""

    def __init__(self, control: socket.socket, pid: int) -> None:
        self._control = control
        self.pid = pid
        self._codes: dict[int, int] = {}  # of children that have ended
        self._running: set[int] = set()
        self.lost = False  # the template process itself has ended

    @classmethod
    def forked(cls, main: Main) -> "Template | None":
        """Fork this process, which has imported what `main` needs.

        None where a fork is not safe: elsewhere than on Linux, or beside another thread. Call it before anything is opened:
        the child closes every descriptor.
        """
        if sys.platform != "linux" or len([*Path("/proc/self/task").iterdir()]) > 1:
            return None
        ours, theirs = socket.socketpair()
        # a collection that touched what was imported would copy its pages, here or there
        gc.collect()
        gc.freeze()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _become_template(theirs, main)
        theirs.close()
        return cls(ours, pid)

    def start(
        self, arguments: Sequence[str], *, environment: Mapping[str, str], streams: tuple[int, int, int], cwd: Path | None = None
    ) -> "ForkedProcess | None":  # fmt: skip
        """Fork a child that runs `main` with these arguments. None when the template has ended."""
        request = {"arguments": [*arguments], "environment": dict(environment), "cwd": str((cwd or Path()).absolute())}
        pid = 0
        try:
            send(self._control, request, streams)
            while not pid:
                pid = self._read()
        except (EOFError, OSError):
            self._lose()
            return None
        self._running.add(pid)
        return ForkedProcess(self, pid)

    def code(self, pid: int, within_s: float | None) -> int | None:
        """Return the exit code of a child, or None when it has not ended within that time."""
        until = None if within_s is None else time.monotonic() + within_s
        while pid not in self._codes:
            left_s = None if until is None else max(0.0, until - time.monotonic())
            if not select.select([self._control], [], [], left_s)[0]:
                return None
            try:
                self._read()
            except (EOFError, OSError):
                self._lose()
        return self._codes[pid]

    def _read(self) -> int:
        """Read one report. Return the pid of a child that has begun, else 0."""
        message, _ = receive(self._control)
        if "pid" in message:
            return int(message["pid"])
        pid = message["ended"]
        self._codes[pid] = message["code"]
        self._running.discard(pid)
        send(self._control, {"reap": pid})
        return 0

    def _lose(self) -> None:
        # Linux has sent them SIGTERM, and they are nobody's that could tell us their codes
        self.lost = True
        self._codes |= dict.fromkeys(self._running, -signal.SIGTERM)
        self._running.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the template; what it has forked and still runs gets SIGTERM."""
        self._control.close()
        until = time.monotonic() + END_WITHIN_S
        while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > until:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.002)


class ForkedProcess:
    """A child of the template, with the interface of `subprocess.Popen` as far as it is used."""

    def __init__(self, template: Template, pid: int) -> None:
        self._template = template
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._template.code(self.pid, 0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self.returncode = self._template.code(self.pid, timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
        return self.returncode

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)


def _become_template(control: socket.socket, main: Main) -> None:
    """In the fork: away from the terminal and from all that this process has open."""
    try:
        os.setsid()
        die_with_parent()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        os.closerange(3, control.fileno())
        os.closerange(control.fileno() + 1, 65536)
        serve(control, main)
    finally:
        os._exit(os.EX_SOFTWARE)
