"""Waiting for a condition instead of sleeping."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable


def wait_until(condition: Callable[[], object], *, within_s: float = 20.0) -> None:
    until = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"not within {within_s:g} s: {condition}")
        time.sleep(0.01)


async def eventually(condition: Callable[[], Awaitable[object]], *, within_s: float = 20.0) -> None:
    until = time.monotonic() + within_s
    while not await condition():
        if time.monotonic() > until:
            raise AssertionError(f"not within {within_s:g} s: {condition}")
        await asyncio.sleep(0.01)


def listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0
