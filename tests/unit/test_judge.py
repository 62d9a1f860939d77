"""Judge calls: what they cost, how they are tried again, and what an error means for the run."""

import asyncio
import base64
import html
import json
import random
import re
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from queue_eval.core.attempt import Backoff, ErrorClass
from queue_eval.core.case import Case
from queue_eval.core.errors import ConfigError, UnavailableError
from queue_eval.core.limits import NO_CHARGE, Charge
from queue_eval.core.meter import CaseMeter
from queue_eval.core.metric_spec import MetricSpec
from queue_eval.core.settings.judge import JudgeSettings
from queue_eval.core.usage import Usage
from queue_eval.judge.calls import CallPolicy, JudgeCalls
from queue_eval.judge.completion import read_completion
from queue_eval.judge.duration import asked_in_words
from queue_eval.judge.estimate import Estimates, counted_by_tiktoken
from queue_eval.judge.headers import limits_named, retry_after_s
from queue_eval.judge.imported import ImportedModel, classed, imported
from queue_eval.judge.lexical import LexicalJudge
from queue_eval.judge.metrics import missing_fields
from queue_eval.judge.openai import _parsed
from queue_eval.judge.read_answer import read_answer
from queue_eval.judge.refusal import refusal
from queue_eval.judge.resolution import resolved_parameters
from queue_eval.judge.schema import strict_schema
from queue_eval.judge.scorer import DeepEvalScorer
from queue_eval.judge.secrets import Secrets
from queue_eval.limiter.unlimited import Unlimited
from queue_eval.ports.judge import Answer, Judge
from queue_eval.ports.judge_error import JudgeError, Trait
from queue_eval.ports.limiter import Permit
from queue_eval.wiring.judging import build_judge
from testkit.fakes.clock import FakeClock
from testkit.fakes.scripted_judge import ScriptedJudge
from testkit.virtual_limiters import in_virtual_time


class Reply(BaseModel):
    ready: bool


GOOD = '{"ready": true}'
TRANSIENT = JudgeError("HTTP 503", ErrorClass.RETRY, admitted=True)
LIMITED = JudgeError("HTTP 429", ErrorClass.RETRY, traits=Trait.RATE_LIMITED, retry_after_s=3.0)
FATAL = JudgeError("HTTP 401", ErrorClass.RUN_FATAL)


def calls(judge: Judge, clock: FakeClock, *, attempts: int = 3) -> JudgeCalls:
    policy = CallPolicy(
        attempts=attempts,
        invalid_answers=1,
        backoff=Backoff(base_s=1.0, max_s=8.0),
        timeout_s=5.0,
        rate_limited_s=600.0,
    )
    limiter = Unlimited(now=clock.now, sleep=clock.sleep)
    return JudgeCalls(
        judge, limiter, policy, estimates=Estimates(), now=clock.now, sleep=clock.sleep, chance=lambda: 0.0
    )


class Counting504s(Unlimited):
    timeouts = 0

    def timed_out(self, permit: Permit) -> None:
        self.timeouts += 1
        super().timed_out(permit)


@pytest.mark.parametrize(("in_a_row", "notices"), [(1, 0), (3, 2)])
async def test_gateway_timeouts_in_a_row_lower_the_calls_in_flight_and_a_lone_one_does_not(
    in_a_row: int, notices: int
) -> None:
    clock = FakeClock()
    late = refusal(504, "Gateway Time-out", {}, Secrets(), now=0.0)
    asking = calls(ScriptedJudge(*[late] * in_a_row, '{"ready": true}'), clock, attempts=5)
    asking._limiter = limiter = Counting504s(now=clock.now, sleep=clock.sleep)
    assert await asking.ask("prompt", Reply, CaseMeter(clock.now).metric())
    assert limiter.timeouts == notices


async def ask(judge: Judge, clock: FakeClock | None = None, **options: int) -> tuple[Any, Usage]:
    clock = clock or FakeClock()
    meter = CaseMeter(clock.now)
    try:
        answer: Any = await calls(judge, clock, **options).ask("prompt", Reply, meter.metric())
    except JudgeError as error:
        answer = error
    return answer, meter.usage


class TestCalls:
    async def test_an_answer_is_read_into_its_schema_and_counted(self) -> None:
        answer, usage = await ask(ScriptedJudge(GOOD))
        assert answer == Reply(ready=True)
        assert usage == Usage(judge_calls=1, input_tokens=1, output_tokens=3)

    async def test_transient_errors_are_retried_with_backoff(self) -> None:
        clock = FakeClock()
        answer, usage = await ask(ScriptedJudge(TRANSIENT, TRANSIENT, GOOD), clock)
        assert answer == Reply(ready=True)
        assert usage.judge_calls == 3
        assert clock.slept_s == [0.5, 1.0]

    async def test_attempts_are_bounded(self) -> None:
        judge = ScriptedJudge(TRANSIENT)
        answer, usage = await ask(judge)
        assert answer is TRANSIENT
        assert (len(judge.prompts), usage.judge_calls) == (3, 3)

    async def test_a_429_pauses_all_calls_costs_no_call_and_no_attempt(self) -> None:
        clock = FakeClock()
        answer, usage = await ask(ScriptedJudge(*[LIMITED] * 5, GOOD), clock)
        assert answer == Reply(ready=True)
        assert (usage.judge_calls, usage.retries_429) == (1, 5)
        assert sum(clock.slept_s) >= 15.0

    async def test_however_many_429s_a_call_meets_they_burn_nothing(self) -> None:
        judge = ScriptedJudge(*[JudgeError("429", ErrorClass.RETRY, traits=Trait.RATE_LIMITED)] * 500, GOOD)
        answer, usage = await ask(judge, attempts=1)
        assert (answer, usage.judge_calls, usage.retries_429) == (Reply(ready=True), 1, 500)

    async def test_a_judge_that_rate_limits_all_for_too_long_holds_the_run(self) -> None:
        clock = FakeClock()

        class Busy(ScriptedJudge):
            async def ask(self, prompt: str, schema: type[Any] | None) -> Answer:
                assert len(self.prompts) < 1000
                clock.advance(10.0)
                return await super().ask(prompt, schema)

        answer, usage = await ask(Busy(LIMITED), clock)
        assert answer.kind is ErrorClass.RUN_FATAL
        (held_after_s,) = map(float, re.findall(r"rate-limited every call for (\d+) s, and served none", str(answer)))
        assert 600 < held_after_s < 620
        assert usage.judge_calls == 0

    async def test_run_fatal_errors_are_not_retried(self) -> None:
        judge = ScriptedJudge(FATAL)
        answer, usage = await ask(judge)
        assert answer is FATAL
        assert (len(judge.prompts), usage.judge_calls) == (1, 0)

    @pytest.mark.parametrize("text", ["no json", '{"ready": "perhaps"}', "[]", "", "{"])
    async def test_an_invalid_answer_is_asked_for_again_and_then_the_cases_fault(self, text: str) -> None:
        judge = ScriptedJudge(text)
        answer, usage = await ask(judge)
        assert isinstance(answer, JudgeError)
        assert answer.kind is ErrorClass.CASE_FATAL
        assert "never gave a valid answer" in str(answer)
        assert (len(judge.prompts), usage.judge_calls) == (2, 2)

    async def test_an_answer_that_was_cut_is_named_and_not_asked_for_again_alike(self) -> None:
        judge = ScriptedJudge(Answer(text='{"ready": tr', input_tokens=1, output_tokens=64, is_cut=True), GOOD)
        answer, _ = await ask(judge)
        assert "cut at 64 tokens (finish_reason length); raise judge.max_output_tokens" in str(answer)
        assert (answer.kind, len(judge.prompts)) == (ErrorClass.CASE_FATAL, 1)

    async def test_an_answer_that_is_whole_though_it_reached_the_limit_counts(self) -> None:
        whole = Answer(text=GOOD, input_tokens=1, output_tokens=64, is_cut=True)
        assert (await ask(ScriptedJudge(whole)))[0] == Reply(ready=True)

    async def test_a_request_that_the_next_one_changes_is_no_attempt(self) -> None:
        changed = JudgeError("no temperature", ErrorClass.RETRY, admitted=True, traits=Trait.CHANGED_REQUEST)
        answer, usage = await ask(ScriptedJudge(changed, changed, changed, GOOD), attempts=1)
        assert (answer, usage.judge_calls) == (Reply(ready=True), 4)

    async def test_a_hanging_judge_is_given_up_and_counted(self) -> None:
        class Hanging(ScriptedJudge):
            async def ask(self, prompt: str, schema: type[Any] | None) -> Any:
                await asyncio.Event().wait()

        clock = FakeClock()
        policy = CallPolicy(
            attempts=2, invalid_answers=0, backoff=Backoff(base_s=1.0, max_s=1.0), timeout_s=0.01, rate_limited_s=600.0
        )
        hanging = JudgeCalls(
            Hanging(GOOD),
            Unlimited(now=clock.now, sleep=clock.sleep),
            policy,
            estimates=Estimates(),
            now=clock.now,
            sleep=clock.sleep,
            chance=lambda: 0.0,
        )
        meter = CaseMeter(clock.now)
        with pytest.raises(JudgeError, match="did not answer within") as error:
            await hanging.ask("p", Reply, meter.metric())
        assert error.value.kind is ErrorClass.RETRY
        assert meter.usage.judge_calls == 2

    async def test_an_answer_that_was_not_foreseen_is_in_the_books_and_asked_for_again(self) -> None:
        class Odd(ScriptedJudge):
            async def ask(self, prompt: str, schema: type[Any] | None) -> Any:
                self.prompts.append(prompt)
                raise RecursionError

        judge = Odd(GOOD)
        answer, usage = await ask(judge)
        assert isinstance(answer, JudgeError)
        assert (len(judge.prompts), usage.judge_calls) == (3, 3)

    async def test_a_cancelled_call_stays_in_the_books(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = asyncio.Event()

        class Slow(ScriptedJudge):
            async def ask(self, prompt: str, schema: type[Any] | None) -> Any:
                asked.set()
                await asyncio.Event().wait()

        clock = FakeClock()
        meter = CaseMeter(clock.now)
        asking = calls(Slow(GOOD), clock)
        task = asyncio.create_task(asking.ask("p", Reply, meter.metric()))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        monkeypatch.setattr("queue_eval.judge.calls.SETTLE_WITHIN_S", 0.0)
        await asking.settled(meter)
        assert meter.usage.judge_calls == 1

    async def test_a_call_that_is_cancelled_twice_still_books_what_was_under_way(self) -> None:
        """As by a lease that was lost, and then because the worker must leave."""
        asked, release = asyncio.Event(), asyncio.Event()

        class Slow(ScriptedJudge):
            async def ask(self, prompt: str, schema: type[Any] | None) -> Any:
                asked.set()
                await release.wait()
                return await super().ask(prompt, schema)

        clock = FakeClock()
        asking, meter = calls(Slow(GOOD), clock), CaseMeter(clock.now)

        async def case() -> None:
            try:
                await asking.ask("p", Reply, meter.metric())
            finally:
                await asking.settled(meter)

        task = asyncio.create_task(case())
        await asked.wait()
        for _ in range(2):
            task.cancel()
            for _ in range(3):
                await asyncio.sleep(0)
        assert not task.done()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert meter.usage.judge_calls == 1

    async def test_when_a_case_ends_its_stray_requests_are_waited_for_and_counted(self) -> None:
        release = asyncio.Event()

        class Slow(ScriptedJudge):
            async def ask(self, prompt: str, schema: type[Any] | None) -> Any:
                if prompt == "fails":
                    raise TRANSIENT
                await release.wait()
                return await super().ask(prompt, schema)

        clock = FakeClock()
        asking, meter = calls(Slow(GOOD), clock, attempts=1), CaseMeter(clock.now)
        metric = meter.metric()
        with pytest.raises(JudgeError):
            # as DeepEval does: two calls at once, and the failure of one forgets the other
            await asyncio.gather(asking.ask("slow", Reply, metric), asking.ask("fails", Reply, metric))
        assert meter.usage.judge_calls == 1
        release.set()
        await asking.settled(meter)
        assert meter.usage == Usage(judge_calls=2, input_tokens=1, output_tokens=3, unmetered_calls=1)


@pytest.mark.parametrize(
    ("status", "body", "kind", "admitted"),
    [
        (429, "", ErrorClass.RETRY, False),
        (429, '{"error": {"code": "insufficient_quota"}}', ErrorClass.RUN_FATAL, False),
        (401, "bad key", ErrorClass.RUN_FATAL, False),
        (402, "", ErrorClass.RUN_FATAL, False),
        (403, "", ErrorClass.RUN_FATAL, False),
        (404, "model_not_found", ErrorClass.RUN_FATAL, False),
        (400, "The model `x` does not exist", ErrorClass.RUN_FATAL, False),
        (400, "context_length_exceeded", ErrorClass.CASE_FATAL, True),
        (413, "", ErrorClass.CASE_FATAL, True),
        (400, "content_filter", ErrorClass.CASE_FATAL, True),
        (400, "something else", ErrorClass.RUN_FATAL, True),
        (302, "", ErrorClass.RUN_FATAL, False),
        (408, "", ErrorClass.RETRY, True),
        (500, "", ErrorClass.RETRY, True),
        (503, "", ErrorClass.RETRY, True),
    ],
)
def test_http_answers_are_classed_by_what_the_run_should_do(
    status: int, body: str, kind: ErrorClass, *, admitted: bool
) -> None:
    error = refusal(status, body, {}, Secrets(), now=0.0)
    assert (error.kind, error.admitted) == (kind, admitted)


def test_a_key_in_an_error_body_is_blanked() -> None:
    assert "sk-abcdef123456" not in str(
        refusal(401, "Incorrect API key provided: sk-abcdef123456", {}, Secrets(), now=0.0)
    )


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": "6m0s"}, 360.0),
        ({"retry-after": "1m30.5s"}, 90.5),
        ({"retry-after": "20 ms"}, 0.02),
        ({"retry-after": "20ms"}, 0.02),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:10 GMT"}, 10.0),
        ({"retry-after": "Fri, 15 Jan 2027 07:00:00 GMT"}, 0.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_retry_after_in_all_its_spellings(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, now=1_800_000_000.0) == seconds


@given(st.text(max_size=40))
def test_no_retry_after_breaks_the_reader(value: str) -> None:
    seconds = retry_after_s({"retry-after": value, "retry-after-ms": value}, now=0.0)
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize(
    ("headers", "limits"),
    [
        (
            {"x-ratelimit-limit-requests": "600", "x-ratelimit-limit-tokens": "40000"},
            {"requests": 600, "tokens": 40000},
        ),
        (
            {"anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-input-tokens-limit": "9e3"},
            {"requests": 50},
        ),
        ({"anthropic-ratelimit-output-tokens-limit": "8000.0"}, {"output": 8000}),
        ({"x-ratelimit-limit-requests": "-1", "x-ratelimit-limit-tokens": "0"}, {}),
        ({"x-ratelimit-limit-requests": "", "x-ratelimit-limit-tokens": "many"}, {}),
        ({"x-ratelimit-limit-requests": "9" * 40}, {}),
    ],
)
def test_limits_in_headers(headers: dict[str, str], limits: dict[str, float]) -> None:
    assert limits_named(headers) == limits


def test_a_429_without_retry_after_waits_for_the_reset_of_what_is_used_up() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s",
        "x-ratelimit-remaining-tokens": "5000", "x-ratelimit-reset-tokens": "9m0s",
        "anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": "2027-01-15T08:01:00Z",
    }  # fmt: skip
    assert retry_after_s(headers, now=1_800_000_000.0) == 360.0
    error = refusal(429, "slow down", {**headers, "x-ratelimit-limit-requests": "60"}, Secrets(), now=0.0)
    assert (error.rate_limited, error.limits) == (True, {"requests": 60})


class BookKeeper(Unlimited):
    """Notes what is asked of a limiter."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(now=clock.now, sleep=clock.sleep)
        self.acquired: list[Charge] = []
        self.settled: list[tuple[Charge, Charge]] = []
        self.refused: list[float | None] = []
        self.seen: list[dict[str, float]] = []

    async def acquire(self, charge: Charge, again: Callable[[], Charge] | None = None) -> Permit:
        self.acquired.append(charge)
        return await super().acquire(charge)

    def settle(self, permit: Permit, used: Charge, *, answered: bool = False) -> None:
        self.settled.append((permit.charge, used))

    def timed_out(self, permit: Permit) -> None:
        self.settle(permit, permit.charge)

    def rate_limited(self, permit: Permit, retry_after_s: float | None) -> None:
        self.refused.append(retry_after_s)

    def observed(self, per_minute: dict[str, float]) -> None:
        self.seen.append(per_minute)


async def test_every_attempt_takes_one_permit_and_settles_it_once_with_what_is_known() -> None:
    clock = FakeClock()
    keeper = BookKeeper(clock)
    unreachable = JudgeError("refused connection", ErrorClass.RETRY)
    notices = JudgeError(
        "429", ErrorClass.RETRY, traits=Trait.RATE_LIMITED, retry_after_s=3.0, limits={"requests": 60.0}
    )
    answer = Answer(text=GOOD, input_tokens=30, output_tokens=5, limits={"tokens": 9.0})
    policy = CallPolicy(
        attempts=9, invalid_answers=1, backoff=Backoff(base_s=1.0, max_s=8.0), timeout_s=5.0, rate_limited_s=600.0
    )
    judge = ScriptedJudge(TRANSIENT, unreachable, notices, answer)
    asked = JudgeCalls(
        judge, keeper, policy, estimates=Estimates(), now=clock.now, sleep=clock.sleep, chance=lambda: 0.0
    )
    meter = CaseMeter(clock.now)
    assert await asked.ask("p", Reply, meter.metric()) == Reply(ready=True)
    assert len(keeper.acquired) == 4
    used = [used for _, used in keeper.settled]
    assert used == [keeper.acquired[0], NO_CHARGE, Charge(input_tokens=30, output_tokens=5)]
    assert (keeper.refused, keeper.seen) == ([3.0], [{"requests": 60.0}, {"tokens": 9.0}])


class Down:
    """A judge that fails all, or all but some."""

    def __init__(self, *, serves: bool) -> None:
        self.asked = 0
        self.serves = serves

    async def ask(self, prompt: str, schema: type[BaseModel] | None) -> Answer:
        self.asked += 1
        if self.serves and prompt == "served":
            return Answer(text=GOOD, input_tokens=1, output_tokens=1)
        raise JudgeError("HTTP 503", ErrorClass.RETRY, admitted=True)

    async def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize("serves", [False, True])
def test_of_a_judge_that_serves_none_each_call_asks_a_few_times_alone(serves: bool) -> None:
    """In virtual time, with the default pauses. While the judge serves others, each call has all its attempts."""

    async def scene() -> tuple[float, int]:
        loop, judge = asyncio.get_running_loop(), Down(serves=serves)
        policy = CallPolicy(
            attempts=6, invalid_answers=1, backoff=Backoff(base_s=2.0, max_s=60.0), timeout_s=5.0, rate_limited_s=600.0
        )
        limiter = Unlimited(now=loop.time, sleep=asyncio.sleep)
        calls = JudgeCalls(
            judge,
            limiter,
            policy,
            estimates=Estimates(),
            now=loop.time,
            sleep=asyncio.sleep,
            chance=random.Random(1).random,
        )
        meter = CaseMeter(loop.time)

        async def others() -> None:
            while serves:
                await calls.ask("served", Reply, meter.metric())
                await asyncio.sleep(0.5)

        served = asyncio.create_task(others())
        gave_up: list[float] = []

        async def one() -> None:
            with pytest.raises(JudgeError):
                await calls.ask("p", Reply, meter.metric())
            gave_up.append(loop.time())

        await asyncio.gather(*(one() for _ in range(64)))
        served.cancel()
        return gave_up[0], judge.asked

    first_s, asked = in_virtual_time(scene)
    if serves:
        assert asked >= 64 * 6
    else:
        assert first_s <= 10  # a case that fails asks for all, and the run is held
        assert asked <= 64 * 4


PAGE = "<html><center><h1>503 Service Temporarily Unavailable</h1></center></html>"


@pytest.mark.parametrize("serves", [True, False])
async def test_a_page_that_turns_calls_away_while_others_are_served_is_a_limit(serves: bool) -> None:
    """Nginx' limit_req: it burns no attempt and slows all down. Of a judge that is down it is a failure."""
    clock = FakeClock()
    keeper = BookKeeper(clock)
    answer = Answer(text=GOOD, input_tokens=30, output_tokens=5)
    policy = CallPolicy(
        attempts=3, invalid_answers=1, backoff=Backoff(base_s=0.1, max_s=0.1), timeout_s=5.0, rate_limited_s=600.0
    )
    pages = [refusal(503, PAGE, {}, Secrets(), now=0.0) for _ in range(9)]
    judge = ScriptedJudge(*[answer] * serves, *pages, answer)
    asked = JudgeCalls(
        judge, keeper, policy, estimates=Estimates(), now=clock.now, sleep=clock.sleep, chance=lambda: 0.0
    )
    meter = CaseMeter(clock.now)
    if serves:
        await asked.ask("p", Reply, meter.metric())
        await asked.ask("p", Reply, meter.metric())
        assert (meter.usage.judge_calls, meter.usage.retries_429, len(keeper.refused)) == (2, 9, 9)
    else:
        with pytest.raises(JudgeError, match="turned the call away"):
            await asked.ask("p", Reply, meter.metric())
        assert (meter.usage.judge_calls, len(keeper.refused)) == (0, 0)
        assert [used for _, used in keeper.settled] == [NO_CHARGE] * 3


class TestEstimates:
    def test_calls_of_a_kind_teach_what_the_next_one_takes(self) -> None:
        estimates = Estimates()
        counted = estimates.count("x" * 4000)
        assert estimates.charge(counted, "Verdicts") == Charge(input_tokens=1002, output_tokens=150)
        for _ in range(200):
            estimates.learn(counted, "Verdicts", input_tokens=1500, output_tokens=40)
            estimates.learn(counted, "Claims", input_tokens=1200, output_tokens=400)
        verdicts, claims = estimates.charge(counted, "Verdicts"), estimates.charge(counted, "Claims")
        assert verdicts.input_tokens == pytest.approx(1500, rel=0.01)
        assert verdicts.output_tokens == pytest.approx(40, abs=1)
        assert claims.output_tokens == pytest.approx(400, abs=1)
        unseen = estimates.charge(counted, "Reason")
        assert verdicts.output_tokens < unseen.output_tokens < claims.output_tokens

    def test_a_provider_that_charges_what_was_asked_for_is_charged_that(self) -> None:
        estimates = Estimates(output_tokens=800)
        counted = estimates.count("x" * 40)
        estimates.learn(counted, "Verdicts", input_tokens=20, output_tokens=3)
        assert estimates.charge(counted, "Verdicts").output_tokens == 800

    def test_tiktoken_counts_where_it_is_and_knows_the_model(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Encoding:
            def encode_ordinary(self, text: str) -> list[str]:
                return text.split()

        def encoding_for_model(model: str) -> Encoding:
            if model != "known":
                raise KeyError(model)
            return Encoding()

        monkeypatch.setitem(sys.modules, "tiktoken", None)
        assert counted_by_tiktoken("known") is None
        monkeypatch.setitem(sys.modules, "tiktoken", SimpleNamespace(encoding_for_model=encoding_for_model))
        assert counted_by_tiktoken("unknown") is None
        count = counted_by_tiktoken("known")
        assert count
        estimates = Estimates(count=count)
        assert estimates.charge(estimates.count("one two three"), "").input_tokens == 4


def test_answers_are_found_inside_prose_and_fences() -> None:
    assert read_answer('Sure!\n```json\n{"ready": true}\n```', Reply) == Reply(ready=True)


@given(st.text(max_size=60))
def test_no_answer_breaks_the_reader(text: str) -> None:
    try:
        read_answer(text, Reply)
    except ValueError as error:
        assert "\n" not in str(error)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
completions = st.fixed_dictionaries(
    {"choices": st.lists(st.fixed_dictionaries({"message": json_values | st.fixed_dictionaries({"content": json_values})}) | json_values, max_size=2) | json_values},
    optional={"usage": json_values | st.fixed_dictionaries({"prompt_tokens": json_values}), "model": json_values},
)  # fmt: skip


@given(st.text(max_size=60) | completions.map(json.dumps) | json_values.map(json.dumps))
def test_whatever_the_judges_server_sends_is_an_answer_or_a_judge_error(text: str) -> None:
    try:
        answer = read_completion(_parsed(text), Secrets())
    except JudgeError as error:
        assert error.admitted
        assert "\n" not in str(error)
    else:
        assert isinstance(answer.text, str)


def test_an_answer_holds_no_secret_and_no_half_characters() -> None:
    printed = json.dumps(
        {
            "choices": [{"message": {"content": "key findings, sk-echoed-1234 \ud800"}}],
            "model": "m-sk-echoed-1234-\ud800",
        }
    )
    answer = read_completion(json.loads(printed), Secrets(lambda: ["sk-echoed-1234"]))
    assert answer.model
    assert "key findings" in answer.text
    for text in (answer.text, answer.model):
        assert "sk-echoed" not in text
        text.encode()


def test_the_strict_schema_closes_objects_and_requires_everything() -> None:
    from deepeval.metrics.faithfulness.schema import Verdicts

    schema = strict_schema(Verdicts)
    verdict = schema["$defs"]["FaithfulnessVerdict"]
    assert (schema["additionalProperties"], verdict["additionalProperties"]) == (False, False)
    assert set(verdict["required"]) == {"verdict", "reason"}
    assert strict_schema(Verdicts) is schema


def test_sdk_exceptions_are_classed_by_their_status() -> None:
    class StatusError(Exception):
        status_code = 401

    assert classed(StatusError("no"), Secrets(), now=0.0).kind is ErrorClass.RUN_FATAL
    assert classed(TimeoutError(), Secrets(), now=0.0).kind is ErrorClass.RETRY
    assert not classed(ConnectionRefusedError(), Secrets(), now=0.0).admitted
    assert classed(KeyError("odd"), Secrets(), now=0.0).kind is ErrorClass.CASE_FATAL
    assert classed(ValueError("no JSON"), Secrets(), now=0.0).is_invalid_answer


# --- the scorer ----------------------------------------------------------------------------------------------------

RELEVANCY = MetricSpec(type="AnswerRelevancyMetric", name="AnswerRelevancy", threshold=0.5, parameters={})
FAITHFULNESS = MetricSpec(type="FaithfulnessMetric", name="Faithfulness", threshold=0.5, parameters={})
CASE = Case(
    case_id="a",
    kind="single",
    place="c:1",
    fields={
        "input": "Where is Graz?",
        "actual_output": "Graz is in Austria.",
        "retrieval_context": ["Graz is a city in Austria."],
    },
)


def scorer(judge: Judge, *specs: MetricSpec, case_timeout_s: float = 60.0, key: str = "") -> DeepEvalScorer:
    clock = FakeClock()
    return DeepEvalScorer(
        list(specs),
        calls(judge, clock),
        model_name="m",
        case_timeout_s=case_timeout_s,
        secrets=Secrets(lambda: [key]),
        now=clock.now,
    )


def meter() -> CaseMeter:
    return CaseMeter(FakeClock().now)


async def test_the_threshold_that_is_reported_is_the_one_that_decides() -> None:
    strict = MetricSpec(type="FaithfulnessMetric", name="Strict", threshold=0.5, parameters={"strict_mode": True})
    relevancy, notices = await scorer(LexicalJudge(), RELEVANCY, strict).score(CASE, skip=frozenset(), meter=meter())
    assert (relevancy.threshold, notices.threshold) == (0.5, 1.0)


async def test_metrics_are_scored_with_deepevals_own_prompts() -> None:
    m = meter()
    results = await scorer(LexicalJudge(), RELEVANCY, FAITHFULNESS).score(CASE, skip=frozenset(), meter=m)
    assert [(r.name, r.score, r.passed) for r in results] == [
        ("AnswerRelevancy", 1.0, True),
        ("Faithfulness", 1.0, True),
    ]
    assert m.usage.judge_calls == 7
    assert [r.usage.judge_calls for r in results] == [3, 4]


async def test_a_failing_metric_does_not_lose_the_others() -> None:
    class HalfIll(LexicalJudge):
        async def ask(self, prompt: str, schema: type[BaseModel] | None) -> Any:
            if schema and "claims" in schema.model_fields:
                raise JudgeError("too long", ErrorClass.CASE_FATAL, admitted=True)
            return await super().ask(prompt, schema)

    relevancy, faithfulness = await scorer(HalfIll(), RELEVANCY, FAITHFULNESS).score(
        CASE, skip=frozenset(), meter=meter()
    )
    assert relevancy.score == 1.0
    assert (faithfulness.score, faithfulness.error, faithfulness.retriable) == (None, "too long", False)


@pytest.mark.parametrize(
    "judge",
    [
        {"type": "openai", "model": "m", "base_url": "http://judge.example/v1", "api_key_env": "JUDGE_KEY"},
        {"type": "import", "path": "tests.support.judges:Echo", "params_env": {"key": "JUDGE_KEY"}},
    ],
)
def test_a_worker_without_the_key_asks_no_judge(judge: dict[str, Any]) -> None:
    """Its refusals would stop all the others."""
    settings = TypeAdapter[JudgeSettings](JudgeSettings).validate_python(judge)
    with pytest.raises(ConfigError, match="JUDGE_KEY is not set here"):
        build_judge(settings, {"OTHER_KEY": "k"})


async def test_a_metric_that_calls_exit_has_an_error_as_any_other_has(monkeypatch: pytest.MonkeyPatch) -> None:
    async def leave(*_: object, **__: object) -> float:
        raise SystemExit(0)

    monkeypatch.setattr("deepeval.metrics.FaithfulnessMetric.a_measure", leave)
    relevancy, faithfulness = await scorer(LexicalJudge(), RELEVANCY, FAITHFULNESS).score(
        CASE, skip=frozenset(), meter=meter()
    )
    assert relevancy.score == 1.0
    assert (faithfulness.score, faithfulness.error) == (None, "SystemExit: 0")


def test_a_module_that_calls_exit_while_it_is_imported_is_no_end_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaves_at_once.py").write_text("import sys; sys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"leaves_at_once:Metric cannot be imported \(SystemExit: 0\)"):
        imported("leaves_at_once:Metric", object)


async def test_scores_of_earlier_attempts_are_not_paid_for_again() -> None:
    m = meter()
    results = await scorer(LexicalJudge(), RELEVANCY, FAITHFULNESS).score(
        CASE, skip=frozenset({"AnswerRelevancy"}), meter=m
    )
    assert [r.name for r in results] == ["Faithfulness"]
    assert m.usage.judge_calls == 4


async def test_a_run_fatal_error_ends_the_scoring() -> None:
    with pytest.raises(JudgeError) as error:
        await scorer(ScriptedJudge(FATAL), RELEVANCY, FAITHFULNESS).score(CASE, skip=frozenset(), meter=meter())
    assert error.value.kind is ErrorClass.RUN_FATAL


async def test_a_refusal_that_only_the_case_provokes_is_its_metrics_error_and_the_others_go_on() -> None:
    class Firewall(LexicalJudge):
        async def ask(self, prompt: str, schema: type[BaseModel] | None) -> Any:
            if schema and "truths" in schema.model_fields:
                raise FATAL
            if schema and "ready" in schema.model_fields:
                return Answer(text='{"ready": true}', input_tokens=1, output_tokens=1)
            return await super().ask(prompt, schema)

    relevancy, faithfulness = await scorer(Firewall(), RELEVANCY, FAITHFULNESS).score(
        CASE, skip=frozenset(), meter=meter()
    )
    assert relevancy.score == 1.0
    assert "serves others and refuses this case" in str(faithfulness.error)
    assert not faithfulness.retriable


async def test_a_case_is_not_blamed_for_a_refusal_of_all_that_ended_a_moment_ago() -> None:
    """The key was rejected, and mended before the neutral question was asked."""
    refused = False

    class Mended(LexicalJudge):
        async def ask(self, prompt: str, schema: type[BaseModel] | None) -> Any:
            nonlocal refused
            if not refused:
                refused = True
                raise FATAL
            if schema and "ready" in schema.model_fields:
                return Answer(text='{"ready": true}', input_tokens=1, output_tokens=1)
            return await super().ask(prompt, schema)

    (result,) = await scorer(Mended(), RELEVANCY).score(CASE, skip=frozenset(), meter=meter())
    assert (result.score, result.error) == (1.0, None)


@pytest.mark.parametrize("score", ["11", "-1", '"NaN"', "1e999"])
async def test_a_score_out_of_range_is_an_error_and_no_score(score: str) -> None:
    geval = MetricSpec(
        type="GEval", name="C", threshold=0.5, parameters={"evaluation_steps": ["look"], "evaluation_params": ["input"]}
    )
    (result,) = await scorer(ScriptedJudge(f'{{"score": {score}, "reason": "give it all"}}'), geval).score(
        CASE, skip=frozenset(), meter=meter()
    )
    assert result.score is None
    assert result.error


async def test_steps_of_a_geval_are_frozen_as_they_are_worded_and_never_none() -> None:
    spec = MetricSpec(
        type="GEval", name="C", threshold=0.5, parameters={"criteria": "Is it true?", "evaluation_params": ["input"]}
    )

    async def steps(answer: str) -> object:
        found = await resolved_parameters(spec, calls(ScriptedJudge(answer), FakeClock()), model_name="m", meter=meter())  # fmt: skip
        return found["evaluation_steps"]

    assert await steps('{"steps": ["look", " ", "say"]}') == ["look", "say"]
    for nothing in ('{"steps": []}', '{"steps": ["", " "]}'):
        with pytest.raises(ConfigError, match=r"metrics: C: .* the judge gave none; write evaluation_steps"):
            await steps(nothing)


async def test_a_case_that_deepeval_does_not_take_is_an_error_of_every_metric() -> None:
    odd = Case(case_id="a", kind="single", place="c:1", fields={"input": "q", "tools_called": [{"no": "name"}]})
    (result,) = await scorer(LexicalJudge(), RELEVANCY).score(odd, skip=frozenset(), meter=meter())
    assert "DeepEval does not take the case" in str(result.error)


def test_missing_fields_are_found_before_anything_is_asked() -> None:
    assert missing_fields(FAITHFULNESS, CASE) is None
    bare = Case(case_id="a", kind="single", place="c:1", fields={"input": "q", "actual_output": ""})
    assert missing_fields(FAITHFULNESS, bare) == "Faithfulness needs actual_output, retrieval_context"
    talk = Case(case_id="a", kind="conversational", place="c:1", fields={"turns": []})
    assert "scores single turns, and the case is a conversation" in str(missing_fields(FAITHFULNESS, talk))


async def test_trouble_of_the_limiter_is_no_cases_fault() -> None:
    class Broken(Unlimited):
        async def acquire(self, charge: Charge, again: Callable[[], Charge] | None = None) -> Permit:
            raise ValueError("WRONGTYPE")

    scoring = scorer(LexicalJudge(), RELEVANCY, FAITHFULNESS)
    clock = FakeClock()
    scoring._calls._limiter = Broken(now=clock.now, sleep=clock.sleep)
    with pytest.raises(UnavailableError, match="the limiter cannot serve: ValueError: WRONGTYPE"):
        await scoring.score(CASE, skip=frozenset(), meter=meter())


SHAPELESS = "7f3a9c0d4e"


@pytest.mark.parametrize("cut", [0, 295])
def test_a_key_of_any_shape_that_the_judge_repeats_is_blanked(cut: int) -> None:
    secrets = Secrets.of({"JUDGE": SHAPELESS, "OTHER_API_KEY": "0b1c2d3e", "HOME": "/home/me"}, "JUDGE")
    printed = f"{'x' * cut}{SHAPELESS} and 0b1c2d3e below /home/me"
    for error in (
        refusal(400, printed, {}, secrets, now=0.0),
        classed(ValueError(printed), secrets, now=0.0),
        classed(OSError(printed), secrets, now=0.0),
    ):
        assert SHAPELESS[:5] not in str(error)
        assert "0b1c" not in str(error)
        assert cut or "/home/me" in str(error)


@pytest.mark.parametrize("spelled", ["{}", '{{"key": "{}"}}', "https://h/?key={}", "<b>{}</b>"])
def test_a_key_is_blanked_in_every_spelling(spelled: str) -> None:
    key = 'a/b"c+d&e=f'
    for written in (
        key,
        json.dumps(key)[1:-1],
        json.dumps(key)[1:-1].replace("/", "\\/"),
        quote(key, safe=""),
        html.escape(key),
    ):
        assert written not in Secrets(lambda: [key]).blanked(spelled.format(written))


@pytest.mark.parametrize(
    "key", ["pass phrase here", "secret\U0001f600key", "\\" * 8, "caf\udce9-of-latin-1", "k" * 900 + "&end"]
)
def test_a_key_of_odd_characters_is_blanked(key: str) -> None:
    for printed in (key, json.dumps(key)[1:-1], quote_plus(key, errors="surrogateescape"), html.escape(key)):
        assert key[:5] not in Secrets(lambda: [key]).without_known(f"it is {printed}.")


@given(st.text(st.sampled_from("aZ09/+=._-&\"'<"), min_size=8, max_size=20), st.randoms(use_true_random=False))
def test_a_key_is_blanked_however_its_characters_are_escaped(key: str, chance: random.Random) -> None:
    ways = (
        lambda c: c,
        lambda c: json.dumps(c)[1:-1],
        lambda c: f"\\u{ord(c):04x}",
        lambda c: f"\\\\u{ord(c):04X}",
        lambda c: f"%{ord(c):02x}",
        lambda c: f"%{ord(c):02X}",
        lambda c: f"&#{ord(c)};",
        lambda c: f"&#x{ord(c):X};",
        html.escape,
    )
    printed = "".join(chance.choice(ways)(c) for c in key)
    assert Secrets(lambda: [key]).without_known(f"it is {printed}.") == "it is ***."


@pytest.mark.parametrize(
    "spelled",
    [
        lambda key: "".join(f"&#{ord(c)}" for c in key),
        lambda key: "".join(f"&#{ord(c):015d};" for c in key),
        lambda key: key.replace("_", "&lowbar;").replace(".", "&period;"),
        lambda key: "".join(f"%25{ord(c):02x}" for c in key),
        lambda key: "".join(f"\\x{ord(c):02x}" for c in key),
        lambda key: "".join(f"&amp;#{ord(c)};" for c in key),
        lambda key: "\n".join(textwrap.wrap(base64.b64encode(key.encode()).decode(), 8)),
        lambda key: "".join(f"%{byte:02x}" for byte in base64.b64encode(key.encode())),
        lambda key: "".join(f"&#{byte};" for byte in base64.b64encode(key.encode())),
        lambda key: "\n".join("".join(f"\\u{ord(c):04x}" for c in part) for part in textwrap.wrap(key, 4)),
    ],
)
def test_a_text_that_hides_a_key_in_another_form_is_not_shown(spelled: Callable[[str], str]) -> None:
    key = "sh4peless_0123.4567_89"
    assert Secrets(lambda: [key]).without_known(f"it is {spelled(key)} indeed") == "***"


def test_a_text_with_escapes_and_no_key_stays() -> None:
    text = "50% of &lt;b&gt; is \\u0041 &#65; and %41%42"
    assert Secrets(lambda: ["sh4peless_0123"]).without_known(text) == text


@pytest.mark.parametrize("text", ["\\" * 4_000_000, "sk-0123%" * 500_000, "&#0000" * 700_000, "s%k\\-" * 800_000])
def test_to_look_for_a_key_takes_no_longer_than_the_text_is_long(text: str) -> None:
    assert "***" not in Secrets(lambda: ["sk-0123456789"]).without_known(text)  # minutes, were it quadratic


@given(st.text(min_size=12, max_size=40), st.binary(max_size=5), st.binary(max_size=5))
def test_of_a_key_in_base64_nearly_nothing_stays(key: str, before: bytes, after: bytes) -> None:
    """At its ends a character or two are also its neighbours'."""
    printed = base64.b64encode(before + key.encode() + after).decode()
    shown = Secrets(lambda: [key]).without_known(printed)
    assert len(printed) - len(shown.replace("***", "")) >= len(base64.b64encode(key.encode())) - 8


async def test_a_key_that_only_the_metrics_reading_brings_to_light_is_blanked() -> None:
    key = "shapeless0123"
    escaped = "".join(f"\\u{ord(c):04x}" for c in key)
    answer = f'{{"score": 8, "reason": "the key is {escaped}", "verdicts": []}}'
    geval = MetricSpec(
        type="GEval", name="C", threshold=0.5, parameters={"evaluation_steps": ["look"], "evaluation_params": ["input"]}
    )
    (result,) = await scorer(ScriptedJudge(answer), geval, key=key).score(CASE, skip=frozenset(), meter=meter())
    assert (result.score, result.reason) == (0.8, "the key is ***")


BLOCKING_MODEL = """
import threading
from deepeval.models import DeepEvalBaseLLM
class Model(DeepEvalBaseLLM):
    def __init__(self, together):
        self.together = threading.Barrier(together)
    def load_model(self):
        return self
    def get_model_name(self):
        return "blocking"
    def generate(self, prompt):
        if prompt == "leave":
            raise SystemExit(3)
        self.together.wait(timeout=10)
        return prompt.upper()
    async def a_generate(self, prompt):
        return self.generate(prompt)
"""


async def test_a_model_that_blocks_is_asked_many_things_at_once_and_holds_none_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commonest form of public code. Each call ends only when all have begun, and the loop is among them."""
    (tmp_path / "blocking_model.py").write_text(BLOCKING_MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    model = ImportedModel("blocking_model:Model", {"together": 41}, Secrets.of({}), now=lambda: 0.0)
    asked = [asyncio.create_task(model.ask(f"q{n}", None)) for n in range(40)]
    together: threading.Barrier = model._model.together
    while together.n_waiting < 40:
        assert not any(task.done() for task in asked)
        await asyncio.sleep(0)
    together.wait(timeout=10)
    assert [answer.text for answer in await asyncio.gather(*asked)] == [f"Q{n}" for n in range(40)]
    with pytest.raises(JudgeError, match=r"called sys\.exit"):
        await model.ask("leave", None)


def test_what_an_imported_model_could_not_read_is_named_in_one_line_without_its_words() -> None:
    """Pydantic's exceptions repeat what they were raised for."""
    with pytest.raises(ValueError, match="Field required") as error:
        Reply.model_validate({"secret": "words of a prompt"})
    found = classed(error.value, Secrets(), now=0.0)
    assert "words of a prompt" not in str(found)
    assert str(found) == "the judge model could not use its answer (ValidationError: ready: Field required)"


async def test_an_answer_that_the_model_cannot_read_is_an_answer() -> None:
    """A judge that answers badly serves: a proxy's page is a limit then, and no call gives up for all."""
    clock = FakeClock()
    invalid = JudgeError("no JSON", ErrorClass.RETRY, admitted=True, traits=Trait.INVALID_ANSWER)
    answer = Answer(text=GOOD, input_tokens=30, output_tokens=5)
    policy = CallPolicy(
        attempts=1, invalid_answers=9, backoff=Backoff(base_s=0.1, max_s=0.1), timeout_s=5.0, rate_limited_s=600.0
    )
    pages = [refusal(503, PAGE, {}, Secrets(), now=0.0) for _ in range(3)]
    asked = JudgeCalls(
        ScriptedJudge(invalid, *pages, answer), BookKeeper(clock), policy, estimates=Estimates(), now=clock.now,
        sleep=clock.sleep, chance=lambda: 0.0,
    )  # fmt: skip
    assert await asked.ask("p", Reply, CaseMeter(clock.now).metric()) == Reply(ready=True)
    assert asked.health.failures_in_a_row == 0


@pytest.mark.parametrize(
    ("words", "wait_s"),
    [
        ("Please try again in 1m26.4s. Visit", 86.4),
        ("Please retry in 2h", 7200.0),
        ("try again in 6h12m", 6 * 3600 + 12 * 60),
        ("Try again in 7 seconds. Passed model=m", 7.0),
        ("retry after 6 minutes", 360.0),
        ("please try again in 250ms.", 0.25),
        ("Retry after 5", 5.0),
        ("retry in a moment, or try again in 3 s", 3.0),
        ("retry in 3 steps", 3.0),
        ("retry in no time", None),
    ],
)
def test_how_long_to_wait_is_read_from_words(words: str, wait_s: float | None) -> None:
    assert asked_in_words(words) == wait_s


class TestAQuotaThatIsUsedUp:
    """Of a minute or of a month: the words are the same. Only what the judge does next shows which."""

    @staticmethod
    def used_up() -> JudgeError:
        return refusal(429, '{"error": {"code": "insufficient_quota", "message": "q"}}', {}, Secrets(), now=0.0)

    async def test_while_calls_are_served_it_is_a_rate_limit(self) -> None:
        clock = FakeClock()
        asking = calls(ScriptedJudge(GOOD, self.used_up(), self.used_up(), GOOD), clock)
        meter = CaseMeter(clock.now)
        for _ in range(2):
            assert await asking.ask("prompt", Reply, meter.metric()) == Reply(ready=True)
        assert meter.usage.judge_calls == 2

    async def test_of_a_judge_that_has_served_no_call_it_holds_the_run_at_once(self) -> None:
        answer, usage = await ask(ScriptedJudge(self.used_up()))
        assert answer.kind is ErrorClass.RUN_FATAL
        assert usage.judge_calls == 0

    async def test_when_no_call_is_served_any_more_it_holds_the_run_and_is_named(self) -> None:
        class Used(ScriptedJudge):
            async def ask(self, prompt: str, schema: type[Any] | None) -> Any:
                await clock.sleep(5.0)
                if clock.now() - began_s > 20:
                    raise TestAQuotaThatIsUsedUp.used_up()
                return await super().ask(prompt, schema)

        clock = FakeClock()
        began_s = clock.now()
        asking, meter = calls(Used(GOOD), clock), CaseMeter(clock.now)
        with pytest.raises(JudgeError, match="quota") as caught:
            for _ in range(9):
                await asking.ask("prompt", Reply, meter.metric())
        assert caught.value.kind is ErrorClass.RUN_FATAL
        assert clock.now() - began_s < 120
