"""Processes forked from the template, as the process that asked for them sees them."""

import gc
import os
import select
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from queue_eval.local.child import die_with_parent
from queue_eval.local.template import MOST_DESCRIPTORS, Main, receive, send, serve, show_as

ANSWER_WITHIN_S = 5.0  # a template that does not reply for longer stands still


class Template:
    """Asks the template process for children. One thread at a time."""

    def __init__(self, control: socket.socket, pid: int, answer_within_s: float = ANSWER_WITHIN_S) -> None:
        control.settimeout(answer_within_s)
        self._control = control
        self.pid = pid
        self._process = os.pidfd_open(pid)
        self._codes: dict[int, int] = {}  # of children that have ended
        self.lost = False  # the template process itself has ended

    @classmethod
    def forked(cls, main: Main) -> "Template | None":
        """Fork this process, which has imported what `main` needs.

        None where a fork is not safe: elsewhere than on Linux, or beside another thread. Call it before anything is
        opened: the child closes every descriptor.
        """
        if sys.platform != "linux" or len([*Path("/proc/self/task").iterdir()]) > 1 or not _has_pidfd():
            return None
        _fill_streams()
        ours, theirs = socket.socketpair()
        # a collection that touched what was imported would copy its pages, here or there
        gc.collect()
        gc.freeze()
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        pid = os.fork()
        if pid == 0:
            _become_template(theirs, main)
        theirs.close()
        return cls(ours, pid)

    def start(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        streams: tuple[int, int, int],
        cwd: Path | None = None,
    ) -> "ForkedProcess | None":
        """Fork a child that runs `main` with these arguments.

        None when the template has ended or stands still. OSError when there can be no other process.
        """
        request = {"arguments": [*arguments], "environment": dict(environment), "cwd": str((cwd or Path()).absolute())}
        if self.lost:
            return None
        try:
            send(self._control, request, streams)
            while "ended" in (answer := self._read()):
                pass
        except (EOFError, OSError):
            self._lose()
            return None
        if "failed" in answer:
            raise OSError(answer["failed"], os.strerror(answer["failed"]))
        return ForkedProcess(self, answer["pid"])

    def code(self, pid: int, process: int, within_s: float | None) -> int | None:
        """Return the exit code of a child, or None when it has not ended within that time. `process`: its pidfd.

        -SIGTERM when only a template that is lost knew it.
        """
        if pid not in self._codes and not select.select([process], [], [], within_s)[0]:
            return None
        try:
            while pid not in self._codes and not self.lost:
                self._read()
        except (EOFError, OSError):
            self._lose()
        return self._codes.get(pid, -signal.SIGTERM)

    def _read(self) -> dict[str, Any]:
        """Read one message, of a child that has begun, or has ended, or could not begin."""
        message, _ = receive(self._control)
        if "ended" in message:
            self._codes[message["ended"]] = message["code"]
            send(self._control, {"reap": message["ended"]})
        return message

    def _lose(self) -> None:
        """Without it, its children get SIGTERM from Linux. They are seen to the end, whatever its code is."""
        self.lost = True
        self._kill()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the template; what it has forked and still runs gets SIGTERM."""
        self._control.close()
        if not select.select([self._process], [], [], ANSWER_WITHIN_S)[0]:
            self._kill()
        with suppress(ChildProcessError):  # where SIGCHLD is ignored, the kernel keeps no exit code
            os.waitpid(self.pid, 0)
        os.close(self._process)


class ForkedProcess:
    """A child of the template, with the interface of `subprocess.Popen` as far as it is used."""

    def __init__(self, template: Template, pid: int) -> None:
        self._template = template
        self.pid = pid
        self.returncode: int | None = None
        # the template keeps the pid until its end was read, so this is no other process
        self._process = os.pidfd_open(pid)
        weakref.finalize(self, os.close, self._process)

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._template.code(self.pid, self._process, 0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self.returncode = self._template.code(self.pid, self._process, timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
        return self.returncode

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, sig)


def _has_pidfd() -> bool:
    """Linux has it since 5.3; a sandbox may refuse it."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def _fill_streams() -> None:
    """Open standard streams that are closed, so that nothing else is given their numbers."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(descriptor)


def _become_template(control: socket.socket, main: Main) -> None:
    """In the fork: away from the terminal and from all that this process has open."""
    try:
        os.setsid()
        die_with_parent(signal.SIGKILL)
        show_as(["queue-eval", "template"])
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        os.closerange(3, control.fileno())
        os.closerange(control.fileno() + 1, MOST_DESCRIPTORS)
        serve(control, main)
    finally:
        os._exit(os.EX_SOFTWARE)
