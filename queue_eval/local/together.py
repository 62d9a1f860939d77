"""Several worker processes that leave as one: `worker --processes N`."""

import asyncio
import os
from collections.abc import Awaitable, Callable

from queue_eval.core.errors import EXIT_ABORTED, EXIT_DRAINED, EXIT_INTERRUPTED
from queue_eval.local.signals import SignalHandlers
from queue_eval.local.worker_pool import WorkerPool

LOOK_EVERY_S = 0.25
LEAVE_WITHIN_S = 15.0


async def work_together(pool: WorkerPool, executions: Callable[[], Awaitable[int | None]]) -> int:
    """Run the workers until all have left; return the exit code that one worker alone would have.

    SIGTERM and Ctrl-C go on to each of them. `executions`: how many were begun in the run so far, None where Redis is
    away.
    """
    try:
        with SignalHandlers(pool.stop):
            pool.start()
            while pool.alive and not pool.failure:
                pool.supervise(await executions())
                await asyncio.sleep(LOOK_EVERY_S)
            if pool.failure:
                pool.stop()
            while pool.alive:
                pool.supervise()
                await asyncio.sleep(LOOK_EVERY_S)
    finally:
        pool.end(LEAVE_WITHIN_S)
    return _code(pool)


def _code(pool: WorkerPool) -> int:
    if pool.failure_code is not None:
        return pool.failure_code if pool.failure_code > 0 else os.EX_SOFTWARE
    for code in (EXIT_ABORTED, EXIT_INTERRUPTED):
        if code in pool.codes:
            return code
    return EXIT_DRAINED if set(pool.codes) == {EXIT_DRAINED} else EXIT_INTERRUPTED
