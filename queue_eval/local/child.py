"""Child processes that do not outlive us, and that a Ctrl-C at the terminal reaches only through us."""

import ctypes
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

_PR_SET_PDEATHSIG = 1


class Child(Protocol):
    """What `subprocess.Popen` and a fork of the template have in common."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None:
        """Return the exit code, of a signal its negative number; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code. `subprocess.TimeoutExpired` when it still runs after `timeout` seconds."""

    def send_signal(self, sig: int) -> None:
        """Never reaches another process, even after the pid was given to one."""


def die_with_parent(sig: signal.Signals = signal.SIGTERM) -> None:
    """Get `sig` when the parent ends. Linux only; elsewhere a child of a killed parent ends when its run is over."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, sig)


def start(
    command: Sequence[str], *, output: int, environment: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """`output`: the descriptor that takes both standard output and standard error."""
    return subprocess.Popen(  # noqa: S603 - our own programs
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=dict(environment) if environment is not None else None,
        start_new_session=True,
        preexec_fn=(die_with_parent if sys.platform == "linux" else None),  # noqa: PLW1509 - from the only thread
    )


def end(process: Child, *, within_s: float) -> int:
    """Send SIGTERM, then SIGKILL; return the exit code."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        return process.wait()
