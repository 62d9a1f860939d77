"""The first call: whoever waits for it is told."""

import asyncio
import logging

import pytest

from queue_eval.core.meter import CaseMeter
from queue_eval.runs.preflight import preflight


class AnswersLate:
    """Rate-limited three times, then it serves once somebody was told."""

    def __init__(self, told: asyncio.Event) -> None:
        self._told = told

    async def probe(self, meter: CaseMeter) -> None:
        metric = meter.metric()
        for _ in range(3):
            metric.rate_limited()
        await self._told.wait()


async def test_whoever_waits_for_a_judge_that_only_answers_429_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    told = asyncio.Event()

    class Tells(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.set()

    logger, handler = logging.getLogger("queue_eval.producer"), Tells()
    logger.addHandler(handler)
    try:
        await asyncio.wait_for(preflight(AnswersLate(told), CaseMeter(lambda: 0.0), tell_after_s=0.01), 5)  # type: ignore[arg-type]
    finally:
        logger.removeHandler(handler)
    (line,) = caplog.messages
    assert "not served the first call within 0.01 s (rate-limited 3 times so far)" in line


async def test_nobody_is_told_of_a_judge_that_serves(caplog: pytest.LogCaptureFixture) -> None:
    serves = asyncio.Event()
    serves.set()
    await preflight(AnswersLate(serves), CaseMeter(lambda: 0.0), tell_after_s=0.0)  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert not caplog.messages
