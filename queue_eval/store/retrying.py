"""A store that is waited for while it is away."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from queue_eval.core.errors import UnavailableError
from queue_eval.ports.store import Store
from queue_eval.retry_while_unavailable import RetryWhileUnavailable

T = TypeVar("T")

CALL_TIMEOUT_S = 60.0  # a call that takes so long is lost, and made again


class RetryingStore:
    """Every call may be made again: names are written once, or replaced by the same."""

    def __init__(self, store: Store, patience: RetryWhileUnavailable, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._store = store
        self._retrying = patience
        self._timeout_s = timeout_s

    async def _insist(self, action: Callable[[], Awaitable[T]]) -> T:
        async def bounded() -> T:
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await action()
            except TimeoutError:
                raise UnavailableError(f"store: no answer within {self._timeout_s:g} s") from None

        return await self._retrying.call(bounded)

    async def create(self, name: str, data: bytes) -> bool:
        tries = 0

        async def attempt() -> bool:
            nonlocal tries
            tries += 1
            created = await self._store.create(name, data)
            # an earlier try may have done it, and only its answer was lost: then these are our own bytes
            return created or (tries > 1 and await self._store.get(name) == data)

        return await self._insist(attempt)

    async def put(self, name: str, source: bytes | Path) -> None:
        await self._insist(lambda: self._store.put(name, source))

    async def get(self, name: str) -> bytes | None:
        return await self._insist(lambda: self._store.get(name))

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        return await self._insist(lambda: self._store.get_many(names))

    async def names(self, prefix: str) -> AsyncIterator[str]:
        async def listed() -> list[str]:
            return [name async for name in self._store.names(prefix)]

        for name in await self._insist(listed):
            yield name
