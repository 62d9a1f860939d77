"""SIGTERM before a command has a handler of its own. Imported before everything that takes time."""

import os
import signal


def exit_on_sigterm() -> None:
    """End the process with 75 on SIGTERM, also on one that came while the signal was blocked.

    At once, and not by an exception: imports swallow those. Nothing is held yet. Commands that hold something install a
    handler of their own.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(os.EX_TEMPFAIL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
