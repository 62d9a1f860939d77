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
from queue_eval.limiter.outage import BREAKER_S, GRACE_S, OutageShare
from queue_eval.limiter.sync_script import LEAST_SLEEP_S, SyncReply
from testkit.fakes.clock import FakeClock


def reply(**fields: object) -> SyncReply:
    plain = SyncReply(
        generation="g", grants=(), processes=4, share=0.0, paused_s=0.0, base=(0, 0, 0), out=(0, 0, 0), queue="", window_s=60.0,
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
    if wait_s > LEAST_SLEEP_S and needed > level:
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
    def share(self, *, sent_at: float = 9.9, lost_at: float | None = 10.1) -> OutageShare:
        """Promised 2.25 requests a second."""
        share = OutageShare()
        share.redis_replied(reply(share=0.225, alone={"requests": 2.25}), sent_at=sent_at, now=10.0)
        if lost_at is not None:
            assert share.lost(lost_at, may_be_done=True)
            assert not share.lost(lost_at, may_be_done=False)
        return share

    def test_it_gives_what_was_promised_until_the_promise_ends(self) -> None:
        share, given = self.share(), 0
        for n in range(1000):
            given += share.take(Charge(), 10.1 + n / 100)
        assert given == pytest.approx((GRACE_S - 0.2 - BREAKER_S) * 2.25, abs=2)

    def test_it_opens_after_the_breaker_and_closes_when_the_promise_ends(self) -> None:
        share = self.share()
        opens = [share.open(at) for at in (10.1, 11.09, 11.1, 9.9 + GRACE_S - 0.01, 9.9 + GRACE_S)]
        assert opens == [False, False, True, True, False]

    def test_a_step_that_may_have_been_carried_out_begins_it_anew(self) -> None:
        share = self.share()
        share.lost(12.0, may_be_done=False)
        assert share.open(12.0)
        share.lost(12.0, may_be_done=True)
        assert [share.open(at) for at in (12.9, 13.0)] == [False, True]

    def test_without_an_answer_without_a_loss_or_without_a_promise_there_is_none(self) -> None:
        unanswered = self.share()
        unanswered.unanswered()
        unpromised = OutageShare()
        unpromised.redis_replied(reply(), sent_at=9.9, now=10.0)
        unpromised.lost(10.1, may_be_done=True)
        for share in (unanswered, unpromised, self.share(lost_at=None), OutageShare()):
            assert not share.take(Charge(), 13.0)

    def test_no_more_piles_up_than_a_window_has_to_spare(self) -> None:
        """However long nothing was asked for: of a window of a second a tenth."""
        share = OutageShare()
        share.redis_replied(reply(share=0.9, window_s=1.0, alone={"requests": 900.0}), sent_at=10.0, now=10.0)
        share.lost(10.0, may_be_done=True)
        assert 0 < sum(share.take(Charge(), 13.0) for _ in range(900)) <= 90

    def test_a_pause_binds_it(self) -> None:
        share = self.share()
        share.pause(12.5)
        assert not any(share.take(Charge(), 11.1 + n / 50) for n in range(70))
        assert any(share.take(Charge(), 12.5 + n / 50) for n in range(50))

    def test_a_large_call_goes_when_the_share_has_yielded_it(self) -> None:
        """27 tokens take 1.2 s at 22.5 a second; it asks every tick."""
        share = OutageShare()
        share.redis_replied(reply(share=0.225, alone={"tokens": 22.5}), sent_at=10.0, now=10.0)
        share.lost(10.0, may_be_done=True)
        went = [n / 50 for n in range(149) if share.take(Charge(input_tokens=27), 11.0 + n / 50)]
        assert went == [pytest.approx(1.2, abs=0.05), pytest.approx(2.4, abs=0.05)]


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
