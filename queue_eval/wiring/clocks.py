"""The clock of what is written down."""

import time

from queue_eval.ports.clock import Now


def steady_clock() -> Now:
    """Unix seconds as they are now, and on from there.

    Setting the machine's clock makes no duration negative or hours long.
    """
    began_at, since = time.time(), time.monotonic()
    return lambda: began_at + time.monotonic() - since
