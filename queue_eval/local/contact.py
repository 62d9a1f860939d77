"""How other terminals of this machine find the Redis of a run under way: a file in the run's folder."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Contact:
    def __init__(self, store: Path, run_id: str) -> None:
        self._path = store / run_id / ".redis"

    def url(self) -> str | None:
        """The server's URL, when it answers. A file that a killed process left behind counts as absent."""
        try:
            url = self._path.read_text(encoding="utf-8").strip()
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(url.removeprefix("unix://"))
        except (OSError, AttributeError):
            return None
        return url

    @contextmanager
    def showing(self, url: str) -> Iterator[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(url, encoding="utf-8")
        try:
            yield
        finally:
            self._path.unlink(missing_ok=True)
