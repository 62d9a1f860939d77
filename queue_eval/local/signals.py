"""A Ctrl-C or SIGTERM that is heard by the event loop."""

import asyncio
import signal
from collections.abc import Callable


class SignalHandlers:
    """SIGINT and SIGTERM call `action` while the block runs."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._action)

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
