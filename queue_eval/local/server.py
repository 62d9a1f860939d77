"""A Redis server of our own: private socket, append-only file, gone with us."""

import asyncio
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from queue_eval.core.errors import UnavailableError
from queue_eval.local.child import end, start

START_TIMEOUT_S = 10.0


class OwnServer:
    """`async with OwnServer(binary) as url`. A server that dies is started again on the same append-only file."""

    def __init__(self, binary: Path) -> None:
        self._binary = binary
        self._folder = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._folder / 'redis.sock'}"

    async def __aenter__(self) -> str:
        # short: a Unix socket's path holds about 100 characters
        self._folder = Path(tempfile.mkdtemp(prefix="queue-eval-"))
        await self._start()
        self._supervisor = asyncio.create_task(self._supervise())
        return self.url

    async def _start(self) -> None:
        socket, log = self._folder / "redis.sock", self._folder / "redis.log"
        command = [
            str(self._binary),
            "--port",
            "0",
            "--unixsocket",
            str(socket),
            "--unixsocketperm",
            "700",
            "--dir",
            str(self._folder),
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "everysec",
            "--maxmemory-policy",
            "noeviction",
            "--daemonize",
            "no",
        ]
        with log.open("ab") as output:
            self._process = start(command, output=output.fileno())
        client: Redis = Redis.from_url(self.url)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not await _answers(client):
                    if self._process.poll() is not None:
                        break
                    await asyncio.sleep(0.02)
                else:
                    return
        except TimeoutError:
            pass
        finally:
            await client.aclose()
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:] or ["no word"]
        raise UnavailableError(f"{self._binary} does not start: {last[0][:200]}; name a running Redis with --redis URL")

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            if self._process and self._process.poll() is not None:
                await self._start()

    async def __aexit__(self, *_: object) -> None:
        if self._supervisor:
            self._supervisor.cancel()
            with suppress(asyncio.CancelledError, UnavailableError):
                await self._supervisor
        if self._process:
            end(self._process, within_s=5.0)
        shutil.rmtree(self._folder, ignore_errors=True)


async def _answers(client: Redis) -> bool:
    try:
        return bool(await client.ping())
    except (RedisError, OSError):
        return False
