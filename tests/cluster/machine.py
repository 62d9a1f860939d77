"""What the tests' cluster has on this machine: its folders and its processes."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

KUBERNETES = "1.36.3"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "queue-eval-cluster"
BIN = CACHE / f"bin-{KUBERNETES}"
STATE = Path("/tmp/queue-eval-cluster")  # sockets want a short path, and root alone starts a cluster


def run(*command: str | Path, cwd: Path | None = None, **more: str) -> str:
    """Its output. buildah works without a daemon and without privileges that a container lacks."""
    environment = {**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot", **more}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{command[0]} failed: {(done.stderr or done.stdout)[-2000:]}")
    return done.stdout


_children: dict[int, "subprocess.Popen[bytes]"] = {}  # of this very process


def start(name: str, *command: str | Path) -> None:
    log = (STATE / "log" / f"{name}.log").open("ab")
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    with log:
        process = subprocess.Popen(
            list(map(str, command)), cwd=STATE, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )  # fmt: skip
    (STATE / "pids" / name).write_text(str(process.pid))
    _children[process.pid] = process


def stop(name: str, *, within_s: float = 15.0) -> None:
    """By its pid, and only while that is still the process that was started."""
    file = STATE / "pids" / name
    if not file.exists():
        return
    pid = int(file.read_text())
    file.unlink()
    if not _is_ours(pid):
        return
    os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + within_s
    while not _is_gone(pid):
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _is_gone(pid: int) -> bool:
    if child := _children.get(pid):
        return child.poll() is not None
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _is_ours(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return str(STATE).encode() in command


def wait_for(what: str, ready: Callable[[], object], *, within_s: float = 60.0) -> None:
    until = time.monotonic() + within_s
    while not ready():
        if time.monotonic() > until:
            raise SystemExit(f"cluster: {what} did not come up within {within_s:g} s; see {STATE / 'log'}")
        time.sleep(0.2)


def processes() -> Iterator[str]:
    """Of it, by what they were started with."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if f"{STATE}/" in command and int(process.name) != os.getpid():
                yield f"process {process.name} ({command[:80].strip()})"
