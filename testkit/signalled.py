"""queue-eval that sends itself a signal: `python -m testkit.signalled SIGKILL POINT N verb …`, at the Nth passing of a point."""

import functools
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from queue_eval.cli.main import main
from queue_eval.queue.claim import RedisClaiming
from queue_eval.store.directory import DirectoryStore

POINTS: dict[str, tuple[type, str]] = {
    "claim": (RedisClaiming, "claim"),
    "finish": (RedisClaiming, "finish"),
    "release": (RedisClaiming, "release"),
    "create": (DirectoryStore, "create"),
    "put": (DirectoryStore, "put"),
}


def arm(signum: signal.Signals, point: str, count: int) -> None:
    """`point`: `before finish`, `after create` …"""
    when, _, name = point.partition(" ")
    owner, method = POINTS[name]
    original: Callable[..., Awaitable[Any]] = getattr(owner, method)
    passed = 0

    @functools.wraps(original)
    async def signalled(*args: Any, **kwargs: Any) -> Any:
        nonlocal passed
        passed += 1
        mine = passed  # another passing may begin before this one returns
        if when == "before" and mine == count:
            os.kill(os.getpid(), signum)
        value = await original(*args, **kwargs)
        if when == "after" and mine == count:
            os.kill(os.getpid(), signum)
        return value

    setattr(owner, method, signalled)


if __name__ == "__main__":
    arm(signal.Signals[sys.argv[1]], sys.argv[2], int(sys.argv[3]))
    sys.argv[1:4] = []
    main()
