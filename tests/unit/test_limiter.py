"""The limiter's arithmetic that needs no Redis: waits, lateness, the outage's share, the timeline."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_eval.core.limiter_stats import SLOT_S, Slot, coalesced, in_words, merged, rows_read, slots_of, utilisation
from queue_eval.core.limits import Charge, Limits
from queue_eval.limiter.lateness import KEEP_S, Lateness
from queue_eval.limiter.outage import BREAKER_S, FRESH_S, GRACE_S, OutageShare
from queue_eval.limiter.pump import LEAST_SLEEP_S, Reply
from queue_eval.testing.clock import FakeClock


def reply(**fields: object) -> Reply:
    plain = Reply(
        generation="g", grants=(), processes=4, paused_s=0.0, base=(0, 0, 0), out=(0, 0, 0), window_s=60.0,
        level={"requests": 0.0}, burst={"requests": 2.0}, rate={"requests": 10.0}, limit={"requests": 600.0},
    )  # fmt: skip
    return replace(plain, **fields)  # type: ignore[arg-type]


@given(
    level=st.floats(-500, 100), rate=st.floats(0.1, 1000), ahead=st.integers(0, 50), each=st.integers(0, 100),
    own=st.integers(0, 100),
)  # fmt: skip
def test_i2_a_waiter_sleeps_until_its_call_can_be_afforded_and_no_longer(
    level: float, rate: float, ahead: int, each: int, own: int
) -> None:
    at = reply(level={"tokens": level}, burst={"tokens": 100.0}, rate={"tokens": rate})
    wait_s = at.wait_s((ahead, ahead * each, 0), Charge(input_tokens=own))
    needed = ahead * each + own
    assert level + wait_s * rate >= needed - 1e-6
    if wait_s > LEAST_SLEEP_S:
        assert level + wait_s * rate <= needed + 1e-6


def test_a_pause_is_waited_for() -> None:
    assert reply(paused_s=3.0).wait_s((0, 0, 0), Charge()) == 3.0


class TestLateness:
    def test_it_is_what_all_but_one_in_a_hundred_stay_below(self) -> None:
        lateness = Lateness(FakeClock().now)
        for _ in range(990):
            lateness.note(0.003)
        for _ in range(9):
            lateness.note(0.9)
        assert lateness.seconds == pytest.approx(0.005)
        for _ in range(10):
            lateness.note(0.9)
        assert lateness.seconds > 0.9

    def test_it_forgets(self) -> None:
        clock = FakeClock()
        lateness = Lateness(clock.now)
        lateness.note(1.0)
        clock.advance(KEEP_S)
        assert lateness.seconds > 0.9
        clock.advance(2 * KEEP_S)
        assert lateness.seconds == 0.0


class TestOutageShare:
    def share(self, *, joined_at: float = 0.0, heard_at: float = 10.0, away_at: float = 10.1) -> OutageShare:
        share = OutageShare()
        share.joined(joined_at)
        share.heard(reply(), heard_at)
        assert share.away(away_at)
        assert not share.away(away_at + 0.1)
        return share

    def test_i9_it_gives_nine_tenths_of_the_rate_over_all_processes(self) -> None:
        share, given = self.share(), 0
        for n in range(3000):
            given += share.take(Charge(), 10.1 + BREAKER_S + n / 100)
        assert given == pytest.approx(30 * 0.9 * 10 / 4, abs=2)

    def test_it_opens_after_the_breaker_and_closes_after_the_grace(self) -> None:
        share = self.share()
        opens = [share.open(10.1 + s) for s in (0.0, BREAKER_S - 0.01, BREAKER_S, GRACE_S, GRACE_S + 0.1)]
        assert opens == [False, False, True, True, False]

    def test_who_was_silent_before_or_is_new_takes_no_part(self) -> None:
        assert not self.share(heard_at=10.0, away_at=10.1 + FRESH_S).open(13.0)
        assert not self.share(joined_at=9.5).open(13.0)
        assert not OutageShare().open(13.0)

    def test_a_pause_binds_it(self) -> None:
        share = self.share()
        share.pause(30.0)
        assert not share.take(Charge(), 20.0)
        assert share.take(Charge(), 30.0)

    def test_a_large_call_leaves_debt(self) -> None:
        share = OutageShare()
        share.joined(0.0)
        share.heard(reply(rate={"tokens": 100.0}), 10.0)
        share.away(10.0)
        assert share.take(Charge(input_tokens=900), 12.0)
        assert not share.take(Charge(input_tokens=1), 40.0)  # 900 tokens take 40 s at 22.5/s
        assert share.take(Charge(input_tokens=1), 52.5)


def slot(n: int, **fields: object) -> Slot:
    return replace(Slot(at=n * SLOT_S, released=10, used={"requests": 10.0}, limits={"requests": 240.0}), **fields)  # type: ignore[arg-type]


class TestTimeline:
    @given(st.lists(st.integers(0, 5000), min_size=1, max_size=200, unique=True), st.integers(1, 50))
    def test_coalescing_loses_nothing(self, numbers: list[int], rows: int) -> None:
        slots = [slot(n, refused=n % 3) for n in sorted(numbers)]
        found = coalesced(slots, rows)
        assert len(found) <= rows + 1
        assert sum(s.released for s in found) == sum(s.released for s in slots)
        assert sum(s.refused for s in found) == sum(s.refused for s in slots)

    def test_merging_keeps_what_redis_has_lost_and_takes_the_later_word(self) -> None:
        stored = merged(None, [slot(1), slot(2)], since=0.0)
        both = slots_of(merged(stored, [slot(2, released=15), slot(4)], since=7.0))
        assert [(s.at, s.released) for s in both] == [(5.0, 10), (10.0, 15), (20.0, 10)]
        assert [s.at for s in slots_of(merged(stored, [slot(9)], since=12.0))] == [10.0, 45.0]

    @pytest.mark.parametrize("data", [None, b"", b"{", b'[{"no": 1}]', b"[1]"])
    def test_a_torn_timeline_is_none(self, data: bytes | None) -> None:
        assert slots_of(data) == []

    def test_utilisation_is_of_the_dimension_that_comes_closest(self) -> None:
        slots = [slot(0, used={"requests": 10.0, "tokens": 90.0}, limits={"requests": 240.0, "tokens": 1200.0})]
        assert utilisation(slots, SLOT_S) == pytest.approx(0.9)
        assert utilisation([Slot(at=0.0)], SLOT_S) is None

    def test_rows_from_the_script_may_have_lists_for_empty_tables(self) -> None:
        row = json.loads(
            '{"at": 5, "released": 0, "refused": 0, "cuts": 0, "paused_ms": 0, "waiting": 0, "factor": 1, "lanes": [], "used": [], "limits": []}'
        )
        assert Slot.of(row) == Slot(at=5)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("at", "released", "refused", "cuts", "paused_ms", "waiting", "factor", "lanes", "used", "limits")


@given(st.fixed_dictionaries(dict.fromkeys(FIELDS, st.sampled_from([0, 1.5, {}]) | json_values)) | json_values)
def test_whatever_stands_in_the_timeline_is_a_sound_row_or_none(row: object) -> None:
    text = json.dumps(row)
    slots = rows_read([text.encode(), b"{", b"\xff"])
    assert len(slots) <= 1
    # what comes out can be stored, read again, added up and judged
    assert slots_of(merged(None, slots, since=-1.0)) == slots
    for one in coalesced(slots):
        assert math.isfinite(one.at + one.released + one.paused_s + sum(one.used.values()))
    utilisation(slots, SLOT_S)


def test_limits_in_words() -> None:
    assert in_words(Limits()) == "no limit"
    assert (
        in_words(Limits(requests=594.0, input=1e6), Limits(requests=600.0))
        == "594 of 600 requests/min, 1,000,000 input tokens/min"
    )
