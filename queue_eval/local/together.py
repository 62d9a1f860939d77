"""Several worker processes that leave as one: `worker --processes N`."""

import asyncio
import os
from collections.abc import Awaitable, Callable

from queue_eval.core.errors import EXIT_ABORTED, EXIT_DRAINED, EXIT_INTERRUPTED
from queue_eval.local.crew import Crew
from queue_eval.local.signals import SignalHandlers

LOOK_EVERY_S = 0.25
LEAVE_WITHIN_S = 15.0


async def work_together(crew: Crew, executions: Callable[[], Awaitable[int | None]]) -> int:
    """Run the workers until all have left; return the exit code that one worker alone would have.

    SIGTERM and Ctrl-C go on to each of them. `executions`: how many were begun in the run so far, None where Redis is
    away.
    """
    try:
        with SignalHandlers(crew.stop):
            crew.start()
            while crew.alive and not crew.failure:
                crew.tend(await executions())
                await asyncio.sleep(LOOK_EVERY_S)
            if crew.failure:
                crew.stop()
            while crew.alive:
                crew.tend()
                await asyncio.sleep(LOOK_EVERY_S)
    finally:
        crew.end(LEAVE_WITHIN_S)
    return _code(crew)


def _code(crew: Crew) -> int:
    if crew.failure_code is not None:
        return crew.failure_code if crew.failure_code > 0 else os.EX_SOFTWARE
    for code in (EXIT_ABORTED, EXIT_INTERRUPTED):
        if code in crew.codes:
            return code
    return EXIT_DRAINED if set(crew.codes) == {EXIT_DRAINED} else EXIT_INTERRUPTED
