"""The first call: a wait for it is reported."""

import asyncio
import logging

import pytest

from queue_eval.core.meter import CaseMeter
from queue_eval.runs.preflight import preflight


class AnswersLate:
    """Rate-limited three times, then it serves, once that was reported."""

    def __init__(self, shown: asyncio.Event) -> None:
        self._told = shown

    async def probe(self, meter: CaseMeter) -> None:
        metric = meter.metric()
        for _ in range(3):
            metric.rate_limited()
        await self._told.wait()


async def test_a_wait_for_a_judge_that_only_answers_429_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    shown = asyncio.Event()

    class Reports(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            shown.set()

    logger, handler = logging.getLogger("queue_eval.producer"), Reports()
    logger.addHandler(handler)
    try:
        await asyncio.wait_for(preflight(AnswersLate(shown), CaseMeter(lambda: 0.0), tell_after_s=0.01), 5)  # type: ignore[arg-type]
    finally:
        logger.removeHandler(handler)
    (line,) = caplog.messages
    assert "not served the first call within 0.01 s (rate-limited 3 times so far)" in line


async def test_of_a_judge_that_serves_nothing_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    serves = asyncio.Event()
    serves.set()
    await preflight(AnswersLate(serves), CaseMeter(lambda: 0.0), tell_after_s=0.0)  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert not caplog.messages
