"""The limiter's Lua against its model: the same inputs, the same grants, with the clock in the test's hand."""

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from queue_eval.core.limits import Charge, Counting, InFlight, Lane, Limits
from queue_eval.limiter.keys import LimiterKeys
from queue_eval.limiter.sync_script import Feedback, SyncRequest, lane_fields, source
from testkit.fakes.limiter_model import LimiterModel
from testkit.redis_server import Server

TEST_CLOCK = "local function clock_ms() return tonumber(ARGV[2]) end\n"
_keys = itertools.count()


class Script:
    """The limiter's script on real Redis, by a clock of the test."""

    def __init__(self, server: Server) -> None:
        self.redis = Redis.from_url(server.url)
        self.keys = LimiterKeys(f"script-{next(_keys)}")
        self._run = self.redis.register_script(TEST_CLOCK + source("limits", "in_flight", "sync"))
        self._numbers: dict[str, int] = {}
        self._is_new = True

    def step(
        self, now_ms: float, process: str, lane: Lane, *, number: int | None = None, **fields: Any
    ) -> dict[str, Any]:
        joins = process not in self._numbers
        self._numbers[process] = number or self._numbers.get(process, 0) + 1
        body: dict[str, Any] = {"name": process, "takes_share": True, "held_share": 0.0, "silent_s": 1.0, "in_flight": 0, "join": joins, "new": joins, "acked": 0, "generation": "", "fresh": "g1", "lateness_s": 0.0, "feedback": Feedback(), "waiters": []} | fields  # fmt: skip
        if self._is_new:
            self._is_new, body["generation"] = False, ""  # there was nothing that it could have seen
        step = SyncRequest(process=process, number=self._numbers[process], **body)
        args: list[Any] = [step.to_json({"name": lane.name, "fields": lane_fields(lane)}), now_ms]
        reply: dict[str, Any] = json.loads(self._run(keys=self.keys.of_sync, args=args))
        return reply

    @property
    def state(self) -> dict[str, str]:
        return {k.decode(): v.decode() for k, v in self.redis.hgetall(self.keys.state).items()}  # type: ignore[union-attr]

    @property
    def released(self) -> int:
        return int(self.state.get("released", 0))

    def timeline(self) -> list[bytes]:
        rows: list[Any] = self.redis.lrange(self.keys.timeline, 0, -1)
        return rows

    def granted(self, process: str, start: int) -> list[str]:
        rows: list[Any] = self.redis.lrange(self.keys.grants(process), start, -1)
        return [row.decode().split("|")[0] for row in rows]

    def rejoined(self, process: str) -> None:
        self._numbers.pop(process)

    def close(self) -> None:
        for key in self.redis.scan_iter(match=f"{self.keys.state}*"):
            self.redis.delete(key)
        self.redis.close()


def tickets(reply: dict[str, Any]) -> list[str]:
    return [grant.split("|")[0] for grant in reply["grants"] or ()]


charges = st.builds(Charge, input_tokens=st.integers(0, 400), output_tokens=st.integers(0, 200))
limits = st.builds(
    Limits,
    requests=st.none() | st.sampled_from([60.0, 600.0, 6000.0]),
    input=st.none() | st.sampled_from([6000.0, 60000.0]),
    tokens=st.none() | st.sampled_from([12000.0, 120000.0]),
)
countings = st.builds(
    Counting,
    window=st.sampled_from(["sliding", "fixed", "bucket"]),
    window_s=st.sampled_from([1.0, 6.0, 60.0]),
    burst=st.none() | st.sampled_from([1.0, 5.0]),
)
steps = st.lists(
    st.fixed_dictionaries(
        {
            "after_ms": st.sampled_from([0, 1, 10, 50, 100, 400, 900, 2500]),
            "process": st.sampled_from(["p0", "p1", "p2"]),
            "waiters": st.lists(charges, max_size=4),
            "back": st.builds(Charge, requests=st.just(0), input_tokens=st.integers(-200, 200)),
            "refused": st.none() | st.sampled_from([0, 200, 90_000]),
            "headers": st.just({}) | st.just({}) | st.fixed_dictionaries({"requests": st.sampled_from([30.0, 300.0])}),
        }
    ),
    min_size=1,
    max_size=40,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    made=steps,
    limits=st.tuples(limits, limits),
    counting=countings,
    # of 3.0 and 1.0 the lanes' virtual times would meet, and the last digit of a float decide who is first
    weights=st.tuples(st.sampled_from([1.0, 3.1, 101.3]), st.just(1.0)),
)
def test_the_script_releases_what_its_model_releases(
    redis_server: Server,
    made: list[dict[str, Any]],
    limits: tuple[Limits, Limits],
    counting: Counting,
    weights: tuple[float, float],
) -> None:
    script, model, now_ms, serials = Script(redis_server), LimiterModel(at_ms=1e12), 1e12, itertools.count()
    lanes = [Lane(name=f"lane{n}", weight=weights[n], limits=limits[n], counting=counting) for n in range(2)]
    taken: dict[str, int] = {}
    try:
        for made_step in made:
            now_ms += made_step["after_ms"]
            process = made_step["process"]
            lane = lanes[int(process[1]) % 2]
            if process in script._numbers and process not in model.seen_ms:
                assert script.step(now_ms, process, lane) == {"forgotten": True}
                script.rejoined(process)
                taken.pop(process, None)
                script.redis.delete(script.keys.grants(process))
            waiters = [(f"t{next(serials)}", charge) for charge in made_step["waiters"]]
            refused = made_step["refused"]
            feedback = Feedback(back=made_step["back"], headers=made_step["headers"])
            if refused is not None:
                feedback.rate_limited(model.released, refused)
            script.step(now_ms, process, lane, generation="g1", feedback=feedback, waiters=waiters)
            released = model.step(
                now_ms, process=process, lane=lane, back=feedback.back, refused_serial=None if refused is None else feedback.refused_serial,
                pause_ms=feedback.pause_ms, headers=feedback.headers, waiters=waiters,
            )  # fmt: skip
            state = script.state
            assert int(state.get("released", 0)) == model.released
            assert int(state.get("cuts", 0)) == model.cuts
            for d, level in model.levels.items():
                assert float(state[f"level_{d}"]) == pytest.approx(level.level, abs=1e-3)
                assert float(state[f"rate_{d}"]) == pytest.approx(level.rate_per_s)
            for owner in {grant.split("|")[0] for grant in released}:
                mine = [grant.split("|")[1] for grant in released if grant.startswith(f"{owner}|")]
                assert script.granted(owner, taken.get(owner, 0)) == mine
                taken[owner] = taken.get(owner, 0) + len(mine)
    finally:
        script.close()


@pytest.fixture
def script(redis_server: Server) -> Any:
    made = Script(redis_server)
    yield made
    made.close()


REQUESTS = Lane(name="r", weight=1.0, limits=Limits(requests=600.0), counting=Counting(window="sliding", window_s=6.0))
TOKENS = Lane(name="r", weight=1.0, limits=Limits(tokens=60_000.0), counting=Counting(window="sliding", window_s=6.0))


def waiting(count: int, *, tokens: int = 0, first: int = 0) -> list[tuple[str, Charge]]:
    return [(f"t{first + n}", Charge(input_tokens=tokens)) for n in range(count)]


def level(script: Script, dimension: str) -> float:
    return float(script.redis.hget(script.keys.state, f"level_{dimension}") or 0)


def test_i1_no_window_holds_more_than_burst_and_rate_allow(script: Script) -> None:
    """60 requests in 6 s, asked for by three processes at odd moments for a minute: whatever the window, never more."""
    released: list[float] = []
    for n in range(6000):
        now_ms = 1e12 + 10 * n + (7 * n) % 9
        process = f"p{n % 3}"
        reply = script.step(now_ms, process, REQUESTS, acked=0, waiters=waiting(1, first=n))
        script.redis.delete(script.keys.grants(process))
        released += [float(grant.split("|")[2]) for grant in reply["grants"] or ()]
    assert len(released) > 580
    for start in released:
        assert sum(start <= at < start + 6000 for at in released) <= 60


def test_i1_a_process_that_is_later_than_before_slows_the_next_release_already(script: Script) -> None:
    script.step(1e12, "p", REQUESTS)
    before = float(script.state["rate_requests"])
    script.step(1e12 + 10, "p", REQUESTS, lateness_s=0.3)
    assert float(script.state["rate_requests"]) < before
    (grant,) = script.step(1e12 + 400, "p", REQUESTS, lateness_s=0.3, waiters=[("t", Charge())])["grants"]
    assert grant.split("|")[3] == "0.3000"  # so long it may take


def test_i1_a_burst_that_lateness_shrinks_is_not_spent_in_the_same_step(script: Script) -> None:
    lane = replace(REQUESTS, counting=Counting(window="bucket", window_s=1.0, burst=100.0))
    script.step(1e12, "p", lane)
    for n in range(1, 100):  # it fills
        script.step(1e12 + 100 * n, "p", lane)
    room = level(script, "requests")
    reply = script.step(1e12 + 10_000, "p", lane, lateness_s=0.8, waiters=waiting(200))
    assert len(tickets(reply)) <= float(script.state["burst_requests"]) < room


def test_i4_a_settlement_counts_once_and_only_in_its_generation(script: Script) -> None:
    script.step(1e12, "p", TOKENS)
    script.step(1e12 + 5000, "p", TOKENS, generation="g1", waiters=waiting(1, tokens=500))
    charged = level(script, "tokens")
    back = Feedback(back=Charge(requests=0, input_tokens=300))
    reply = script.step(1e12 + 5000, "p", TOKENS, number=3, generation="g1", feedback=back)
    assert level(script, "tokens") == pytest.approx(min(charged + 300, reply["burst"]["tokens"]))
    once = level(script, "tokens")
    script.step(1e12 + 5000, "p", TOKENS, number=3, generation="g1", feedback=back)
    assert level(script, "tokens") == pytest.approx(once)
    script.step(
        1e12 + 5000, "p", TOKENS, generation="g0", feedback=Feedback(back=Charge(requests=0, input_tokens=-3000))
    )
    assert level(script, "tokens") == pytest.approx(once)


def test_a_permit_that_is_given_back_whole_is_no_call_in_the_timeline(script: Script) -> None:
    script.step(1e12, "p", REQUESTS, waiters=waiting(2))
    script.step(1e12 + 3000, "p", REQUESTS)
    script.step(1e12 + 4000, "p", REQUESTS)
    assert script.released == 2
    back = Feedback(back=Charge(), late=Charge(requests=0, input_tokens=5))
    script.step(1e12 + 4100, "p", REQUESTS, number=4, generation="g1", feedback=back)
    script.step(1e12 + 4100, "p", REQUESTS, number=4, generation="g1", feedback=back)  # its reply was lost
    script.step(1e12 + 4200, "p", REQUESTS, generation="g0", feedback=back)
    script.step(1e12 + 5100, "p", REQUESTS)
    script.step(1e12 + 9000, "p", REQUESTS, generation="g1", feedback=Feedback(late=Charge()))
    script.step(1e12 + 10_000, "p", REQUESTS)
    (before, after) = (json.loads(row) for row in script.timeline())
    assert (before["released"], before["lanes"]) == (1, {REQUESTS.name: 1})
    assert (after["released"], after["lanes"]) == (-1, {REQUESTS.name: -1})
    assert (script.released, script.state["given_back"]) == (2, "2")  # the serials go on


@pytest.mark.parametrize("field", ["is_first", "most_before", "window_ended", "slow_serial", "in_vain", "tried_less"])
def test_i11_a_part_of_the_calls_in_flight_that_another_hand_puts_there_ends_no_step(
    script: Script, field: str
) -> None:
    script.step(1e12, "p", REQUESTS)
    script.redis.hset(script.keys.state, field, "1")
    reply = script.step(1e12 + 5000, "p", REQUESTS, fresh="g2", waiters=waiting(1))
    assert tickets(reply) == ["t0"]


def test_i11_a_request_that_another_hand_made_look_done_is_carried_out(script: Script) -> None:
    script.step(1e12, "p", REQUESTS)
    record = script.redis.hget(script.keys.processes, "p")
    seen, number, *rest = record.decode().split()  # type: ignore[union-attr]
    script.redis.hset(script.keys.processes, "p", " ".join([seen, str(int(number) + 1), *rest]))
    reply = script.step(1e12 + 5000, "p", REQUESTS, fresh="g2", waiters=waiting(1))
    assert tickets(reply) == ["t0"]


def test_i4_a_refund_after_ten_minutes_fills_the_bucket_and_no_more(script: Script) -> None:
    script.step(1e12, "p", TOKENS)
    reply = script.step(
        1e12 + 600_000, "p", TOKENS, generation="g1", feedback=Feedback(late=Charge(requests=0, input_tokens=10**6))
    )
    assert level(script, "tokens") == pytest.approx(reply["burst"]["tokens"])


def test_i5_a_pause_binds_the_tickets_that_wait_already(script: Script) -> None:
    script.step(1e12, "p", REQUESTS, waiters=waiting(50))
    script.step(
        1e12 + 100, "p", REQUESTS, generation="g1", feedback=Feedback(refused=1, refused_serial=0, pause_ms=2000)
    )
    before = script.released
    script.step(1e12 + 2000, "p", REQUESTS)
    assert script.released == before
    script.step(1e12 + 2200, "p", REQUESTS)
    assert script.released != before


def test_i5_a_cut_binds_the_tickets_that_wait_already(script: Script) -> None:
    script.step(1e12, "p", REQUESTS, waiters=waiting(500))

    def released_in_two_seconds(start_ms: float) -> int:
        before = script.released
        for n in range(1, 21):
            script.step(start_ms + 100 * n, "p", REQUESTS)
        return script.released - before

    free = released_in_two_seconds(1e12)
    now_ms = 1e12 + 2000
    for _ in range(8):
        now_ms += 200
        refused = Feedback(refused=1, refused_serial=script.released, pause_ms=1)
        script.step(now_ms, "p", REQUESTS, generation="g1", feedback=refused)
        script.step(now_ms + 100, "p", REQUESTS)
    assert script.state["cuts"] == "8"
    assert released_in_two_seconds(now_ms + 100) <= 0.7 * free


@pytest.mark.parametrize("how", ["a call that is larger than the window", "an answer that used more than was thought"])
def test_one_huge_call_stops_the_others_for_a_few_windows_at_most(script: Script, how: str) -> None:
    """60,000 tokens a minute in windows of 6 s, spread to half of that; one call takes ten million, or five hours' worth.

    The window passes (6 s); what may still count is one window's worth, earned back at the spread rate (12 s).
    """
    huge = 10_000_000
    now_ms = 1e12
    script.step(now_ms, "p", TOKENS)
    waiters = waiting(1, tokens=huge if "larger" in how else 100)
    while script.released < 1:
        now_ms += 500
        assert now_ms < 1e12 + 20_000, "the first call waits for a full bucket and no longer"
        script.step(now_ms, "p", TOKENS, waiters=waiters)
        waiters = []
    if "larger" not in how:
        back = Feedback(back=Charge(requests=0, input_tokens=-huge))
        script.step(now_ms, "p", TOKENS, generation="g1", feedback=back)
    script.step(now_ms, "p", TOKENS, waiters=waiting(1, tokens=100, first=1))
    for n in range(1, 21):
        script.step(now_ms + 1000 * n, "p", TOKENS)
    assert script.released == 2


def test_i6_many_429s_of_one_episode_are_one_cut(script: Script) -> None:
    script.step(1e12, "p", REQUESTS, waiters=waiting(5))
    script.step(1e12 + 1000, "p", REQUESTS)
    for n in range(3):
        script.step(1e12 + 1001 + n, "p", REQUESTS, generation="g1", feedback=Feedback(refused=40, refused_serial=1))
    state = script.redis.hgetall(script.keys.state)
    assert (state[b"cuts"], state[b"refused"]) == (b"1", b"120")


def test_a_retry_after_of_a_day_pauses_a_minute_and_does_not_freeze_the_controller(script: Script) -> None:
    script.step(1e12, "p", REQUESTS, waiters=waiting(5))
    script.step(1e12 + 500, "p", REQUESTS)
    for n in range(400):
        script.step(
            1e12 + 600 + n,
            "p",
            REQUESTS,
            generation="g1",
            feedback=Feedback(refused=1, refused_serial=1, pause_ms=86_400_000),
        )
    reply = script.step(1e12 + 59_000, "p", REQUESTS)
    assert 0 < reply["paused_ms"] <= 2000
    reply = script.step(1e12 + 62_000, "p", REQUESTS)
    assert reply["paused_ms"] == 0
    reply = script.step(1e12 + 80_000, "p", REQUESTS)
    assert reply["rate"]["requests"] * 60 > 580


def test_i7_a_lost_state_begins_empty_and_all_join_again(script: Script) -> None:
    script.step(1e12, "p", REQUESTS, waiters=waiting(20))
    script.step(1e12 + 10_000, "p", REQUESTS)
    script.redis.delete(script.keys.state)
    assert script.step(1e12 + 10_001, "p", REQUESTS) == {"forgotten": True}
    reply = script.step(1e12 + 10_002, "p.1", REQUESTS, fresh="g2", waiters=waiting(20))
    assert (reply["generation"], len(reply["grants"] or ())) == ("g2", 0)


def test_a_process_that_was_only_forgotten_brings_no_limits_back(script: Script) -> None:
    other = replace(REQUESTS, limits=Limits(requests=60.0))
    script.step(1e12, "old", REQUESTS)
    assert script.step(1e12 + 1, "resumed", other)["limit"] == {"requests": 60}
    assert script.step(1e12 + 2, "old.1", REQUESTS, new=False)["limit"] == {"requests": 60}
    assert script.step(1e12 + 3, "newest", REQUESTS)["limit"] == {"requests": 600}


def test_i7_a_state_that_went_back_in_time_is_a_lost_one(script: Script) -> None:
    """Redis comes back from a snapshot: it knows the process, and not the tickets that it was sent since."""
    script.step(1e12, "p", REQUESTS)
    before: Any = script.redis.dump(script.keys.state), script.redis.dump(script.keys.processes)
    script.step(1e12 + 1, "p", REQUESTS, waiters=waiting(20))
    for key, value in zip((script.keys.state, script.keys.processes), before, strict=True):
        script.redis.restore(key, 0, value, replace=True)
    assert script.step(1e12 + 2, "p", REQUESTS) == {"forgotten": True}
    reply = script.step(1e12 + 3, "p.1", REQUESTS, fresh="g2", waiters=waiting(20))
    assert reply["generation"] == "g2"


def test_a_run_that_does_not_obey_headers_is_not_bound_by_what_another_learnt(script: Script) -> None:
    stubborn = replace(REQUESTS, name="s", obeys_headers=False)
    reply = script.step(1e12, "p", REQUESTS, feedback=Feedback(headers={"requests": 6.0}))
    assert reply["limit"] == {"requests": 6}
    reply = script.step(1e12 + 70_000, "q", stubborn)
    assert reply["limit"] == {"requests": 600}


def test_runs_of_the_past_cost_the_script_nothing(script: Script) -> None:
    """What the server did is counted, not timed."""

    def commands(now_ms: float) -> int:
        before: Any = script.redis.info("commandstats")
        script.step(now_ms, "p", REQUESTS)
        after: Any = script.redis.info("commandstats")
        return sum(int(stat["calls"]) for stat in after.values()) - sum(int(stat["calls"]) for stat in before.values())

    script.step(1e12, "p", REQUESTS)
    few = commands(1e12 + 100)
    for n in range(50):
        script.step(1e12 + 200 + n, f"p{n}", replace(REQUESTS, name=f"run{n}"))
    script.step(1e12 + 100_000, "p", REQUESTS, join=True)
    assert commands(1e12 + 100_100) <= few


def test_a_lost_reply_loses_no_grant_and_repeats_nothing(script: Script) -> None:
    script.step(1e12, "p", REQUESTS)
    first = script.step(1e12 + 5000, "p", REQUESTS, number=2, waiters=waiting(2))
    again = script.step(1e12 + 5001, "p", REQUESTS, number=2, waiters=waiting(2))
    assert tickets(first) == tickets(again) == ["t0"]
    assert script.redis.llen(script.keys.fifo("r")) == 1
    acknowledged = script.step(1e12 + 5002, "p", REQUESTS, acked=1)
    assert tickets(acknowledged) == []


def test_i10_the_tickets_of_a_silent_process_cost_nothing_and_it_finds_out(script: Script) -> None:
    script.step(1e12, "dead", REQUESTS, waiters=waiting(300))
    script.step(1e12, "p", REQUESTS, waiters=waiting(3, first=300))
    script.step(1e12, "dead", REQUESTS)  # which has to share now what it was promised
    got: list[str] = []
    for n in range(1, 40):
        reply = script.step(1e12 + 100 * n, "p", REQUESTS, acked=0)
        got = tickets(reply)
    assert got == ["t300", "t301", "t302"]
    assert script.released <= 15  # within the second before it counted as silent
    assert script.step(1e12 + 4000, "dead", REQUESTS) == {"forgotten": True}


def test_i3_lanes_share_by_weight_and_each_keeps_its_order(script: Script) -> None:
    heavy = Lane(name="pr", weight=3.0, limits=REQUESTS.limits, counting=REQUESTS.counting)
    script.step(1e12, "a", REQUESTS, waiters=waiting(400))
    script.step(1e12, "b", heavy, waiters=waiting(400, first=1000))
    order = {"a": [], "b": []}  # type: dict[str, list[str]]
    for n in range(1, 400):
        for process, lane in (("a", REQUESTS), ("b", heavy)):
            order[process] = tickets(script.step(1e12 + 50 * n, process, lane))
    share = len(order["b"]) / (len(order["a"]) + len(order["b"]))
    assert len(order["a"]) + len(order["b"]) > 150
    assert share == pytest.approx(0.75, abs=0.05 * 0.75)
    for granted in order.values():
        assert granted == sorted(granted, key=lambda ticket: int(ticket[1:]))


def test_i3_a_lane_that_was_idle_has_saved_nothing_up(script: Script) -> None:
    other = Lane(name="late", weight=1.0, limits=REQUESTS.limits, counting=REQUESTS.counting)
    script.step(1e12, "a", REQUESTS, waiters=waiting(400))
    script.step(1e12, "b", other)
    for n in range(1, 100):
        script.step(1e12 + 100 * n, "a", REQUESTS)
        script.step(1e12 + 100 * n, "b", other)
    before = script.released
    script.step(1e12 + 10_000, "b", other, waiters=waiting(400, first=1000))
    for n in range(1, 100):
        script.step(1e12 + 10_000 + 100 * n, "a", REQUESTS)
        reply = script.step(1e12 + 10_000 + 100 * n, "b", other)
    after = script.released
    assert len(tickets(reply)) == pytest.approx((after - before) / 2, abs=2)


def test_headers_lower_the_limit_at_once_and_raise_it_no_higher_than_configured(script: Script) -> None:
    rates = []
    for n, limit in enumerate((None, 300.0, 6000.0)):
        headers = {} if limit is None else {"requests": limit}
        reply = script.step(1e12 + n, "p", REQUESTS, feedback=Feedback(headers=headers))
        rates.append(round(reply["limit"]["requests"]))
    assert rates == [600, 300, 600]


def test_a_limit_that_no_answer_names_any_more_binds_none(script: Script) -> None:
    def limit(after_s: float, **headers: float) -> float:
        reply = script.step(1e12 + 1000 * after_s, "p", REQUESTS, feedback=Feedback(headers=headers))
        return round(float(reply["limit"]["requests"]))

    assert [limit(0, requests=300.0), limit(119), limit(121)] == [300, 300, 600]
    assert [limit(130, requests=300.0), limit(240, requests=300.0), limit(300)] == [300, 300, 300]


def test_requests_are_not_saved_up_while_tokens_are_what_lacks(script: Script) -> None:
    both = Lane(name="r", weight=1.0, limits=Limits(requests=600.0, tokens=6000.0), counting=REQUESTS.counting)
    script.step(1e12, "p", both, waiters=waiting(100, tokens=1000))
    for n in range(1, 600):
        script.step(1e12 + 100 * n, "p", both)
    assert level(script, "requests") <= 2.0


def test_what_another_hand_writes_among_the_processes_is_gone_within_a_second(script: Script) -> None:
    """Whatever stands there, the others are served, and the calls in flight are counted anew."""
    limited = replace(REQUESTS, limits=Limits(), in_flight=InFlight(most=2))
    script.step(1e12, "p", limited)
    for key in (script.keys.processes, script.keys.shares, script.keys.in_flight):
        for name, text in (("odd", "x"), ("old", "1 1 1"), ("far", "inf nan 1e9"), ("many", "99999")):
            script.redis.hset(key, name, text)
    script.redis.hset(script.keys.state, "in_flight", 1e9)
    script.step(1e12 + 1001, "p", limited, waiters=waiting(3))
    reply = script.step(1e12 + 2002, "p", limited)
    assert tickets(reply) == ["t0", "t1"]
    assert script.state["in_flight"] == "2"
    assert script.redis.hkeys(script.keys.processes) == [b"p"]


def test_a_clock_that_jumps_releases_no_more_than_a_burst(script: Script) -> None:
    script.step(1e12, "p", REQUESTS, waiters=waiting(100))
    script.step(1e12 + 1000, "p", REQUESTS)
    before = script.released
    script.step(1e12 - 4000, "p", REQUESTS)
    script.step(1e12 - 3990, "p", REQUESTS)
    script.step(1e12 + 6000, "p", REQUESTS)
    assert script.released - before <= 2


def test_a_timeout_just_after_a_window_began_costs_a_half_of_the_calls(script: Script) -> None:
    """An empty window shows nothing of the judge's pace: a half is what one timeout costs."""
    lane = Lane(name="r", weight=1.0, limits=Limits(requests=60_000.0), counting=Counting(window="bucket"))
    script.step(1e12, "p", lane)
    for second in range(1, 5):
        served = Feedback(answers=60, load=1.0)
        script.step(1e12 + 1000 * second, "p", lane, generation="g1", feedback=served, in_flight=20)
    script.step(1e12 + 4010, "p", lane, generation="g1", feedback=Feedback(timeouts=1, timeouts_serial=1), in_flight=20)
    assert float(script.state["most"]) >= 10
