"""The store of a run's objects."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol


class Store(Protocol):
    """Named objects of one run. Durable when a call returns; a torn object counts as absent."""

    async def create(self, name: str, data: bytes) -> bool:
        """Create-once: False when the object is already there, unchanged."""
        ...

    async def put(self, name: str, source: bytes | Path) -> None:
        """Create or replace in one step."""
        ...

    async def get(self, name: str) -> bytes | None: ...

    def names(self, prefix: str) -> AsyncIterator[str]:
        """Names below `prefix`, in no order."""
        ...

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """As `get`, for many at once, in their order."""
        ...
