"""Ctrl-C and SIGTERM in an event loop."""

import asyncio
import signal
from collections.abc import Callable
from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM)

_Handler = Callable[[int, FrameType | None], object] | int | None


def handle_signals(action: Callable[[], None]) -> None:
    """Call `action` on SIGINT and SIGTERM, until the running event loop closes."""
    loop = asyncio.get_running_loop()
    for number in _NUMBERS:
        loop.add_signal_handler(number, action)


class SignalHandlers:
    """SIGINT and SIGTERM call `action` while the block runs; afterwards what handled them before does so again."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self._before: list[_Handler] = []

    def __enter__(self) -> None:
        self._before = [signal.getsignal(number) for number in _NUMBERS]
        handle_signals(self._action)

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number, before in zip(_NUMBERS, self._before, strict=True):
            loop.remove_signal_handler(number)
            signal.signal(number, before)
