"""How other terminals of this machine find the Redis of a run under way: a file in the run's folder."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from queue_eval.store.regular import opened


class RedisAddressFile:
    def __init__(self, store: Path, run_id: str) -> None:
        self._path = store / run_id / ".redis"

    def url(self) -> str | None:
        """The server's URL, when it answers. A file that a killed process left behind counts as absent."""
        try:
            url = self._own_text().strip()
            if not url.startswith("unix://") or Path(url.removeprefix("unix://")).stat().st_uid != os.getuid():
                return None  # a program that listens there would get the password
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(url.removeprefix("unix://"))
        except (OSError, ValueError, AttributeError):
            return None
        return url

    def _own_text(self) -> str:
        """OSError where it is no file of this user's own, or others can write it."""
        with os.fdopen(opened(self._path, os.O_RDONLY), encoding="utf-8") as file:
            facts = os.fstat(file.fileno())
            if facts.st_uid != os.getuid() or facts.st_mode & 0o022:
                raise PermissionError(f"{self._path} is not this user's alone")
            return file.read(4096)

    @contextmanager
    def showing(self, url: str) -> Iterator[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)  # a link there may lead to any file
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(url)
        try:
            yield
        finally:
            self._path.unlink(missing_ok=True)
