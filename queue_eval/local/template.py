"""The template: a process with everything imported and nothing open, from which workers are forked.

A fork takes milliseconds where the imports take seconds, and it shares the pages of the imports with its siblings. This
file runs in the template; `local/forks.py` is the side that asks it.

A message is a length (8 bytes, with the file descriptors of a request as ancillary data) and a JSON object. Requests:
{arguments, environment, cwd} with three descriptors, answered by {pid} or {failed: errno}; {reap: pid}. Reports:
{ended: pid, code}. The template keeps a child that has ended as a zombie until `reap`, so that a signal meant for it
never reaches another process that was given the same pid.
"""

import atexit
import ctypes
import json
import logging
import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from queue_eval.early_signals import exit_on_sigterm
from queue_eval.local.child import die_with_parent

Main = Callable[[], None]  # reads sys.argv, ends by SystemExit

LENGTH_BYTES = 8
MOST_DESCRIPTORS = 65536
_STREAMS = 3


def send(control: socket.socket, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
    body = json.dumps(message).encode()
    socket.send_fds(control, [len(body).to_bytes(LENGTH_BYTES, "big")], descriptors)
    control.sendall(body)


def receive(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """EOFError when the other side is gone."""
    head, descriptors, _, _ = socket.recv_fds(control, LENGTH_BYTES, _STREAMS)
    head += _exactly(control, LENGTH_BYTES - len(head)) if head else b""
    if not head:
        raise EOFError
    message: dict[str, Any] = json.loads(_exactly(control, int.from_bytes(head, "big")))
    return message, descriptors


def _exactly(control: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = control.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def serve(control: socket.socket, main: Main) -> NoReturn:
    """Fork a child that runs `main` for each request, until the asking side closes `control`; then end this process.

    Nothing else ends it: a SIGTERM to all processes of a service is for the asking side and the children. Linux sends
    SIGTERM to the children of a template that ends.
    """
    try:
        _Server(control, main).run()
    except (EOFError, ConnectionError):
        os._exit(os.EX_OK)
    finally:
        os._exit(os.EX_SOFTWARE)


class _Server:
    def __init__(self, control: socket.socket, main: Main) -> None:
        self._control = control
        self._main = main
        self._running: set[int] = set()
        self._woken, wakes = socket.socketpair()
        self._woken.setblocking(False)
        wakes.setblocking(False)
        self._wakes = wakes  # kept: closed with its object
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)

    def run(self) -> NoReturn:
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ, self._answer)
            selector.register(self._woken, selectors.EVENT_READ, self._report_ended)
            while True:
                for key, _ in selector.select():
                    key.data()

    def _report_ended(self) -> None:
        self._woken.recv(4096)
        for pid in list(self._running):
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                continue
            self._running.discard(pid)
            code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
            send(self._control, {"ended": pid, "code": code})

    def _answer(self) -> None:
        request, descriptors = receive(self._control)
        if "reap" in request:
            os.waitpid(request["reap"], 0)
            return
        template = os.getpid()
        # one that comes before the child has its handler waits for it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            pid = os.fork()
        except OSError as error:  # no process more for this user, or no memory: the others go on
            answer = {"failed": error.errno}
        else:
            if pid == 0:
                _run_as(request, descriptors, self._main, template)
            self._running.add(pid)
            answer = {"pid": pid}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        for descriptor in descriptors:
            os.close(descriptor)
        send(self._control, answer)


def _run_as(request: dict[str, Any], descriptors: list[int], main: Main, template: int) -> NoReturn:
    """In the child: become the process that `request` describes, and end with its exit code."""
    code: Any = os.EX_SOFTWARE
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.default_int_handler)
        os.setsid()
        die_with_parent()
        if os.getppid() != template:
            os._exit(os.EX_TEMPFAIL)
        for stream, descriptor in enumerate(descriptors):
            os.dup2(descriptor, stream)
        os.closerange(_STREAMS, MOST_DESCRIPTORS)
        _open_streams()
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.argv = ["queue-eval", *request["arguments"]]
        show_as(sys.argv)
        exit_on_sigterm()
        # what the parent registered is the parent's; CPython's multiprocessing does the same
        atexit._clear()  # noqa: SLF001
        main()
        code = os.EX_OK
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001 - the frames below belong to the template
        sys.excepthook(*sys.exc_info())
    finally:
        _end(code if isinstance(code, int) else os.EX_OK if code is None else os.EX_SOFTWARE)


def _open_streams() -> None:
    """Python's own streams, which were made for the template's descriptors, for those of this process."""
    encoding = sys.__stdout__.encoding if sys.__stdout__ else None
    sys.stdin = sys.__stdin__ = open(0, encoding=encoding, closefd=False)  # type: ignore[misc] # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", encoding=encoding, closefd=False)  # type: ignore[misc] # noqa: SIM115
    stderr = open(2, "w", 1, encoding, "backslashreplace", closefd=False)  # noqa: SIM115 - for the process' life
    sys.stderr = sys.__stderr__ = stderr  # type: ignore[misc]


def _end(code: int) -> NoReturn:
    try:
        # as an interpreter does at its end: threads that are no daemons are waited for first
        threading._shutdown()  # type: ignore[attr-defined] # noqa: SLF001
        atexit._run_exitfuncs()  # noqa: SLF001 - as above
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code)


def show_as(words: list[str]) -> None:
    """Write the command line that `ps` shows over the parent's, as far as it has room.

    Linux keeps it in the process' own memory.
    """
    if sys.platform != "linux":
        return
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end of proc(5)
    title = b"\0".join(os.fsencode(word) for word in words)[: end - start - 1]
    ctypes.memmove(start, title.ljust(end - start, b"\0"), end - start)
