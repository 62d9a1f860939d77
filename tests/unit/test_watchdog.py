"""Who watches from beside the event loop."""

import threading
import time

from queue_eval.worker.watchdog import Watchdog


def test_a_loop_that_stands_still_ends_the_process() -> None:
    ended: list[float] = []
    bitten = threading.Event()

    def end(after_s: float) -> None:
        ended.append(after_s)
        bitten.set()

    with Watchdog(patience_s=0.05, tick_s=0.01, end=end):
        assert bitten.wait(5)
    assert ended == [0.05]


def test_a_loop_that_turns_does_not() -> None:
    bitten = threading.Event()
    turns = Watchdog(patience_s=2.0, tick_s=0.01, end=lambda _s: bitten.set())
    with turns:
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            turns.turned()
            assert not bitten.wait(0.01)


def test_after_the_work_no_watchdog_watches() -> None:
    bitten = threading.Event()
    with Watchdog(patience_s=0.02, tick_s=0.01, end=lambda _s: bitten.set()):
        pass
    assert not bitten.wait(0.2)
