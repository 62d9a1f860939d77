"""queue-eval with a death in it: `python -m tests.support.dying POINT N verb …` is killed at the Nth passing of a point."""

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
    "create": (DirectoryStore, "create"),
    "put": (DirectoryStore, "put"),
}


def arm(point: str, count: int) -> None:
    """`point`: `before finish`, `after create` …"""
    when, _, name = point.partition(" ")
    owner, method = POINTS[name]
    original: Callable[..., Awaitable[Any]] = getattr(owner, method)
    passed = 0

    @functools.wraps(original)
    async def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal passed
        passed += 1
        if when == "before" and passed == count:
            os.kill(os.getpid(), signal.SIGKILL)
        value = await original(*args, **kwargs)
        if when == "after" and passed == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    setattr(owner, method, deadly)


if __name__ == "__main__":
    arm(sys.argv[1], int(sys.argv[2]))
    sys.argv[1:3] = []
    main()
