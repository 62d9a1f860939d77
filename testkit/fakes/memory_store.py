"""A store in memory, with faults to order."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from queue_eval.core.errors import StoreError


class MemoryStore:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.failing = False

    async def create(self, name: str, data: bytes) -> bool:
        self._check(name)
        if self.objects.get(name):
            return False
        self.objects[name] = data
        return True

    async def put(self, name: str, source: bytes | Path) -> None:
        self._check(name)
        self.objects[name] = source.read_bytes() if isinstance(source, Path) else source  # noqa: ASYNC240 - a fake may block

    async def get(self, name: str) -> bytes | None:
        self._check(name)
        return self.objects.get(name) or None

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        return [await self.get(name) for name in names]

    async def names(self, prefix: str) -> AsyncIterator[str]:
        for name in list(self.objects):
            if name.startswith(prefix):
                yield name

    def _check(self, name: str) -> None:
        if not name or name.startswith("/") or ".." in name.split("/") or "\x00" in name:
            raise StoreError(f"store: {name!r} is no object name")
        if self.failing:
            raise StoreError("store: made to fail")
