"""S3 servers to test against: moto's, and versitygw where it is installed (its objects are files that a test can inspect)."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from testkit.waiting import listens, wait_until

LOOPBACK = "127.0.0.1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def moto() -> Iterator[str]:
    port = _free_port(LOOPBACK)
    command = [sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", str(port)]
    with _serving(command, LOOPBACK, port, environment=dict(os.environ)) as url:
        yield url


def versitygw_binary() -> Path | None:
    """On PATH, or beside the interpreter, where CI puts it: `GOBIN=$PWD/.venv/bin go install github.com/versity/versitygw/cmd/versitygw@v1.8.0`."""
    found = shutil.which("versitygw") or shutil.which("versitygw", path=str(Path(sys.executable).parent))
    return Path(found) if found else None


@contextmanager
def versitygw(port: int = 0, *, host: str = LOOPBACK) -> Iterator[str]:
    binary = versitygw_binary()
    if binary is None:
        raise SystemExit("no versitygw on this machine")
    port = port or _free_port(host)
    with tempfile.TemporaryDirectory(prefix="versitygw-") as folder:
        keys = {"ROOT_ACCESS_KEY": CREDENTIALS["AWS_ACCESS_KEY_ID"], "ROOT_SECRET_KEY": CREDENTIALS["AWS_SECRET_ACCESS_KEY"]}  # fmt: skip
        command = [str(binary), "--port", f"{host}:{port}", "--quiet", "posix", folder]
        with _serving(command, host, port, environment=keys) as url:
            yield url


@contextmanager
def _serving(command: list[str], host: str, port: int, *, environment: dict[str, str]) -> Iterator[str]:
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdout=nowhere, stderr=nowhere, stdin=nowhere) as process:
        try:
            wait_until(lambda: listens(host, port), within_s=30)
            yield f"http://{host}:{port}"
        finally:
            process.kill()


SERVERS: dict[str, Callable[[], AbstractContextManager[str]]] = {"moto": moto, "versitygw": versitygw}


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
