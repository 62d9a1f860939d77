"""Waiting for infrastructure that is away: longer and longer, never in step with others, and logged once."""

import asyncio
import itertools
import logging

import pytest

from queue_eval.core.errors import UnavailableError
from queue_eval.retry_while_unavailable import RetryWhileUnavailable
from queue_eval.wiring.clocks import steady_clock
from testkit.fakes.clock import FakeClock


def away(times: int) -> "list[Exception]":
    return [UnavailableError("Redis is away") for _ in range(times)]


async def insisted(failures: "list[Exception]", *, chance: float) -> list[float]:
    """The pauses between tries."""
    clock = FakeClock()
    patience = RetryWhileUnavailable(sleep=clock.sleep, chance=lambda: chance, now=clock.now)

    async def action() -> str:
        if failures:
            raise failures.pop(0)
        return "served"

    assert await patience.call(action) == "served"
    return clock.slept_s


async def test_i17_pauses_grow_up_to_five_seconds() -> None:
    pauses = await insisted(away(12), chance=0.5)
    assert pauses == sorted(pauses)
    assert 0 < pauses[0] < 1 < pauses[-1] <= 5
    assert len(set(pauses)) > 3


async def test_i17_two_workers_do_not_come_back_at_the_same_moment() -> None:
    early, late = await insisted(away(5), chance=0.0), await insisted(away(5), chance=0.9)
    assert all(one < other for one, other in zip(early, late, strict=True))


async def test_i17_an_outage_is_reported_once_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await insisted(away(50), chance=0.5)
    assert [record.message for record in caplog.records] == ["unavailable; waiting", "available again"]


async def test_i17_a_call_that_meets_the_end_of_an_outage_does_not_report_that_it_begins_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its answer was on its way when another was served."""
    clock = FakeClock()
    patience = RetryWhileUnavailable(sleep=clock.sleep, chance=lambda: 0.5, now=clock.now)
    late = asyncio.Event()
    failures = away(1)

    async def under_way() -> str:
        await late.wait()
        if failures:
            raise failures.pop()
        return "served"

    async def served() -> str:
        return "served"

    slow = asyncio.create_task(patience.call(under_way))
    await asyncio.sleep(0)
    clock.advance(1.0)
    await patience.call(served)
    late.set()
    with caplog.at_level(logging.WARNING):
        assert await slow == "served"
    assert caplog.records == []


def test_a_clock_that_is_set_back_makes_no_duration_negative(monkeypatch: pytest.MonkeyPatch) -> None:
    walls, passed = iter([1_800_000_000.0, 1_799_996_400.0, 1_799_996_401.0]), itertools.count()
    monkeypatch.setattr("queue_eval.wiring.clocks.time.time", lambda: next(walls))
    monkeypatch.setattr("queue_eval.wiring.clocks.time.monotonic", lambda: float(next(passed)))
    now = steady_clock()
    assert [now(), now(), now()] == [1_800_000_001.0, 1_800_000_002.0, 1_800_000_003.0]
