"""A judge call: permit → ask → settle, tried again by tenacity. Nothing below this retries, nothing above it counts."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import BaseModel
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from queue_eval.core.attempt import Backoff, ErrorClass
from queue_eval.core.errors import QueueEvalError, UnavailableError
from queue_eval.core.limits import NO_CHARGE, ONE_REQUEST, Charge
from queue_eval.core.meter import CaseMeter, UsageMeter
from queue_eval.judge.estimate import Estimates
from queue_eval.judge.health import JudgeHealth
from queue_eval.judge.read_answer import read_answer
from queue_eval.ports.clock import Chance, Now, Sleep
from queue_eval.ports.judge import Answer, Judge, WeighingJudge
from queue_eval.ports.judge_error import JudgeError, Trait
from queue_eval.ports.limiter import Limiter, Permit

SETTLE_WITHIN_S = 3.0  # for requests under way when their case ends


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPolicy:
    attempts: int
    invalid_answers: int
    backoff: Backoff
    timeout_s: float
    rate_limited_s: float  # of nothing but rate limits, for every call of this process, before the run is held


@dataclass(slots=True)
class _Failures:
    """Of one call. A rate limit is no failure of the call, so it is none."""

    invalid: int = 0
    transient: int = 0


@dataclass(slots=True)
class _UnderWay:
    """What goes on for one case."""

    asks: "set[asyncio.Task[Any] | None]" = field(default_factory=set)
    requests: "set[asyncio.Task[Answer]]" = field(default_factory=set)


class NoLogprobsError(AttributeError):
    """The judge returns no logprobs. DeepEval takes an AttributeError for that, and asks in another way."""


@dataclass(frozen=True, slots=True)
class _Question:
    prompt: str
    schema: type[BaseModel] | None
    top_logprobs: int = 0  # the answer is free text that fits the schema, with so many alternatives to each token

    @property
    def kind(self) -> str:
        """Calls that want the same form have prompts and answers of a kind."""
        return self.schema.__name__ if self.schema else ""

    def put(self, judge: Judge) -> Awaitable[Answer]:
        """NoLogprobsError where the judge returns none, as may have turned out since."""
        if not self.top_logprobs:
            return judge.ask(self.prompt, self.schema)
        if not most_logprobs(judge):
            raise NoLogprobsError("the judge returns no logprobs")
        return cast("WeighingJudge", judge).ask_weighed(self.prompt, self.top_logprobs)

    def read(self, answer: Answer) -> BaseModel | None:
        """The answer in the form that was asked for, None for free text. ValueError when it does not have it."""
        fits = read_answer(answer.text, self.schema) if self.schema else None
        if self.top_logprobs and answer.tokens is None:
            raise ValueError("the answer comes without logprobs, though they were asked for")
        return fits


def most_logprobs(judge: Judge) -> int:
    most: int = getattr(judge, "most_logprobs", 0)
    return most


class JudgeCalls:
    """All judge calls of a process go through one of these."""

    def __init__(
        self,
        judge: Judge,
        limiter: Limiter,
        policy: CallPolicy,
        *,
        estimates: Estimates,
        now: Now,
        sleep: Sleep,
        chance: Chance,
    ) -> None:
        self._judge = judge
        self._limiter = limiter
        self._policy = policy
        self._now = now
        self._sleep = sleep
        self._chance = chance
        self._estimates = estimates
        self._of_case: dict[CaseMeter, _UnderWay] = {}
        self.served_model: str | None = None  # as the last answer named it
        self.waiting = 0
        self.ended = 0
        self.health = JudgeHealth(now)

    async def ask(self, prompt: str, schema: type[BaseModel] | None, meter: UsageMeter) -> BaseModel | str:
        """The answer, as an instance of `schema` when one is given.

        JudgeError, classed, when there is none to be had.
        """
        answer, fits = await self._asked(_Question(prompt, schema), meter)
        return answer.text if fits is None else fits

    @property
    def tells_logprobs(self) -> bool:
        return most_logprobs(self._judge) > 0

    async def ask_weighed(
        self, prompt: str, schema: type[BaseModel], top_logprobs: int, meter: UsageMeter
    ) -> tuple[Answer, BaseModel]:
        """Return the answer as free text that fits `schema`, with its tokens. As `ask`; NoLogprobsError without."""
        answer, fits = await self._asked(_Question(prompt, schema, top_logprobs), meter)
        return answer, cast("BaseModel", fits)

    async def _asked(self, question: _Question, meter: UsageMeter) -> tuple[Answer, BaseModel | None]:
        asking = self._of_case.setdefault(meter.case, _UnderWay())
        task = asyncio.current_task()
        asking.asks.add(task)
        try:
            return await self._until_answered(question, meter)
        except JudgeError as error:
            if error.rate_limited:
                raise JudgeError(
                    f"the judge has rate-limited every call for {self.health.rate_limited_for_s:.0f} s,"
                    f" and served none ({error})",
                    ErrorClass.RUN_FATAL,
                    quoted=error.quoted,
                ) from None
            if not error.is_invalid_answer:
                raise
            raise JudgeError(f"the judge never gave a valid answer: {error}", ErrorClass.CASE_FATAL) from None
        finally:
            asking.asks.discard(task)

    async def _until_answered(self, question: _Question, meter: UsageMeter) -> tuple[Answer, BaseModel | None]:
        """Most calls are answered at once, and tenacity's look at its callbacks costs as much as two calls of ours."""
        try:
            return await self._attempt(question, meter)
        except JudgeError as error:
            failed: list[JudgeError] = [error]

        async def attempt() -> tuple[Answer, BaseModel | None]:
            if failed:
                raise failed.pop()
            return await self._attempt(question, meter)

        return await self._retrying()(attempt)

    async def settled(self, case: CaseMeter) -> None:
        """Call it when a case ends, however it ends: afterwards its meter is final.

        A metric that fails leaves its other calls to themselves, and a case may be cancelled: those calls stop here. A
        request that is under way is given a moment, because only its answer has what it cost. A cancellation meanwhile,
        a second one where a worker must leave, is cancelled afterwards: what is recorded of the case before then would
        lack those requests.
        """
        settling = asyncio.create_task(self._settle(case, asyncio.current_task()))
        is_cancelled = False
        while not settling.done():
            try:
                await asyncio.shield(settling)
            except asyncio.CancelledError:
                is_cancelled = True
        if is_cancelled:
            raise asyncio.CancelledError

    async def _settle(self, case: CaseMeter, whose: "asyncio.Task[Any] | None") -> None:
        under_way = self._of_case.pop(case, None)
        if under_way is None:
            return
        for ask in under_way.asks:
            if ask and ask is not whose:
                ask.cancel()
        if under_way.requests:
            _, late = await asyncio.wait(under_way.requests, timeout=SETTLE_WITHIN_S)
            for request in late:
                request.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _attempt(self, question: _Question, meter: UsageMeter) -> tuple[Answer, BaseModel | None]:
        counted = self._estimates.count(question.prompt)
        permit = await self._permit(question.kind, counted, meter)
        request = asyncio.create_task(self._request(question, counted, meter, permit))
        requests = self._of_case.setdefault(meter.case, _UnderWay()).requests
        requests.add(request)
        request.add_done_callback(requests.discard)
        request.add_done_callback(self._heard)
        # shielded: after a cancellation here the request runs to its end or to `settled`, and is counted
        answer = await asyncio.shield(request)
        try:
            return answer, question.read(answer)
        except ValueError as error:
            if answer.is_cut:
                raise JudgeError(_cut(answer), ErrorClass.CASE_FATAL) from None
            raise JudgeError(str(error), ErrorClass.RETRY, traits=Trait.INVALID_ANSWER) from None

    async def _permit(self, kind: str, counted: int, meter: UsageMeter) -> Permit:
        def estimate() -> Charge:
            return self._estimates.charge(counted, kind, self._limiter.output_tokens)

        self.waiting += 1
        try:
            with meter.case.blocked:
                permit = await self._limiter.acquire(estimate(), estimate)
        except QueueEvalError:
            raise
        except Exception as error:
            raise UnavailableError(f"the limiter cannot serve: {type(error).__name__}: {error}") from error
        finally:
            self.waiting -= 1
        meter.case.waited_s += permit.waited_s
        return permit

    async def _request(self, question: _Question, counted: int, meter: UsageMeter, permit: Permit) -> Answer:
        try:
            with meter.case.busy:
                async with asyncio.timeout(self._policy.timeout_s):
                    answer = await question.put(self._judge)
        except NoLogprobsError:
            self._limiter.settle(permit, NO_CHARGE)
            raise
        except JudgeError as error:
            self._failed(error, meter, permit)
            raise
        except TimeoutError:
            late = JudgeError(
                f"the judge did not answer within {self._policy.timeout_s:g} s", ErrorClass.RETRY, admitted=True
            )
            meter.admitted(None, None)
            self._limiter.timed_out(permit)
            self.health.failed()
            raise late from None
        except asyncio.CancelledError:
            # it was on its way: better one call too many in the books than one too few
            meter.admitted(None, None)
            self._limiter.settle(permit, permit.charge)
            raise
        except Exception as error:
            # an imported judge, or an answer of an unknown form: it reached the judge, and the next may do
            odd = JudgeError(
                f"the judge's answer cannot be used ({type(error).__name__})", ErrorClass.RETRY, admitted=True
            )
            self._failed(odd, meter, permit)
            raise odd from error
        self.health.served()
        self.served_model = answer.model
        meter.admitted(answer.input_tokens, answer.output_tokens)
        self._limiter.observed(answer.limits)
        self._learn(question.kind, counted, answer, permit)
        return answer

    def _heard(self, request: "asyncio.Task[Answer]") -> None:
        """What became of a request is counted; its case may be gone, and no other code reads its error."""
        self.ended += 1
        if not request.cancelled():
            request.exception()

    def _failed(self, error: JudgeError, meter: UsageMeter, permit: Permit) -> None:
        if (error.is_proxys_own or error.is_quota) and self.health.serves:
            error.kind, error.traits = ErrorClass.RETRY, error.traits | Trait.RATE_LIMITED
        if error.rate_limited:
            self.health.rate_limited()
            meter.rate_limited()
            self._limiter.observed(error.limits)
            self._limiter.rate_limited(permit, error.retry_after_s)
            return
        if error.admitted:
            meter.admitted(None, None)
        # one may be by chance; of a gateway whose judge has too many calls, others have failed before it
        if error.is_timeout and self.health.failures_in_a_row:
            self._limiter.timed_out(permit)
        else:
            self._limiter.settle(permit, self._spent(error, permit))
        if error.is_invalid_answer:
            self.health.served()
        elif error.kind is ErrorClass.RETRY and not error.has_changed_request:
            self.health.failed()

    @staticmethod
    def _spent(error: JudgeError, permit: Permit) -> Charge:
        """Of a request that brought no answer, as the provider counts it."""
        if not error.admitted:
            return NO_CHARGE
        if error.is_rejected:
            return ONE_REQUEST  # it was read, and no model has seen it
        return permit.charge  # what an answer that never came has cost is unknown

    def _learn(self, kind: str, counted: int, answer: Answer, permit: Permit) -> None:
        if answer.input_tokens is None or answer.output_tokens is None:
            self._limiter.settle(permit, permit.charge, answered=True)
            return
        used = Charge(input_tokens=answer.input_tokens, output_tokens=answer.output_tokens)
        self._limiter.settle(permit, used, answered=True)
        self._estimates.learn(counted, kind, input_tokens=used.input_tokens, output_tokens=used.output_tokens)
        self._limiter.answers_take(self._estimates.output_tokens)

    def _retrying(self) -> AsyncRetrying:
        """For one call: what ends its attempts, and how long it waits between them."""
        failures, policy = _Failures(), self._policy

        def count(state: RetryCallState) -> None:
            error = _error(state)
            if error.is_invalid_answer:
                failures.invalid += 1
            elif not (error.rate_limited or error.has_changed_request):
                failures.transient += 1

        def enough(state: RetryCallState) -> bool:
            if _error(state).rate_limited:
                return self.health.rate_limited_for_s > policy.rate_limited_s
            if failures.invalid > policy.invalid_answers:
                return True
            if failures.transient >= policy.attempts:
                return True
            return failures.transient > 0 and self.health.serves_nobody(policy.attempts)

        def pause_s(state: RetryCallState) -> float:
            error = _error(state)
            if error.rate_limited or error.is_invalid_answer or error.has_changed_request:
                # a 429's pause binds all calls in the limiter's queue, where this call goes again; it need not wait
                # twice
                return 0.0
            return policy.backoff.delay_s(failures.transient, jitter=self._chance(), retry_after_s=error.retry_after_s)

        return AsyncRetrying(
            retry=retry_if_exception(_worth_a_retry),
            stop=enough,
            wait=pause_s,
            after=count,
            sleep=self._sleep,
            reraise=True,
        )

    async def close(self) -> None:
        await self._judge.close()
        await self._limiter.close()


def _cut(answer: Answer) -> str:
    """Asked again alike, it would be cut again."""
    tokens = f" at {answer.output_tokens:,} tokens" if answer.output_tokens else ""
    return (
        f"the judge's answer was cut{tokens} (finish_reason length); raise judge.max_output_tokens, or the server's own"
        " limit"
    )


def _worth_a_retry(error: BaseException) -> bool:
    return isinstance(error, JudgeError) and error.kind is ErrorClass.RETRY


def _error(state: RetryCallState) -> JudgeError:
    error = state.outcome.exception() if state.outcome else None
    if not isinstance(error, JudgeError):
        raise TypeError(f"tenacity retries only judge errors, not {error!r}")
    return error
