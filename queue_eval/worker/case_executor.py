"""Carries a claimed case through its steps, from the claim to its end."""

import asyncio
import logging
from dataclasses import asdict, dataclass

from queue_eval.core import objects
from queue_eval.core.attempt import MAX_CRASHES, Accept, Backoff, DeadLetter, Retry, after_attempt
from queue_eval.core.case import Case, is_case_id
from queue_eval.core.ending import Ending
from queue_eval.core.errors import QueueEvalError
from queue_eval.core.record import MetricResult
from queue_eval.core.run import PASSED, SCORED
from queue_eval.ports.clock import Chance, Now
from queue_eval.ports.judge_error import JudgeError
from queue_eval.ports.queue import Claim, Claiming, Steering
from queue_eval.ports.scorer import Scorer
from queue_eval.retry_while_unavailable import RetryWhileUnavailable
from queue_eval.worker.execution import Execution
from queue_eval.worker.judge_check import JudgeCheck
from queue_eval.worker.records import RECORD_WITHIN_S, Records

log = logging.getLogger("queue_eval.worker")

JUDGE_HOLD = "judge: "  # a hold that begins so is lifted by a probe that succeeds
MOST_REASON = 2000  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """How often a case is tried, and how long it waits in between."""

    most: int
    backoff: Backoff


class CaseExecutor:
    """Every path ends in exactly one of finish or release, after what the execution spent is stored."""

    def __init__(
        self,
        *,
        queue: Claiming,
        steering: Steering,
        records: Records,
        scorer: Scorer,
        retrying: RetryWhileUnavailable,
        attempts: Attempts,
        now: Now,
        chance: Chance,
    ) -> None:
        self._queue = queue
        self._steering = steering
        self._records = records
        self._scorer = scorer
        self._retrying = retrying
        self._attempts = attempts
        self._chance = chance
        self._under_way: dict[tuple[str, str], Execution] = {}  # by case and execution
        self._judge_check = JudgeCheck(scorer, now)

    async def execute(self, claim: Claim) -> None:
        """Cancelling it releases the case without counting the attempt.

        QueueEvalError when the store, the limiter or the configuration fails, which is no case's fault.
        """
        execution = self._under_way[claim.case_id, claim.execution] = self._records.begin(claim)
        try:
            await self._guarded(execution)
        except asyncio.CancelledError:
            await self._give_back(execution, "the worker is leaving")
            raise
        except QueueEvalError as error:
            await self._give_back(execution, str(error))
            raise
        finally:
            del self._under_way[claim.case_id, claim.execution]

    def waited_s(self) -> dict[str, float]:
        """Return for how long each case under way has waited for the limiter."""
        return {case_id: execution.meter.blocked.total_s for (case_id, _), execution in self._under_way.items()}

    async def give_back(self, claim: Claim) -> None:
        """Release a claim that this worker never started.

        Record it first: an execution without a record counts as a crash.
        """
        await self._give_back(self._records.begin(claim), "the worker is leaving")

    async def _guarded(self, execution: Execution) -> None:
        try:
            await self._carry_out(execution)
        except JudgeError as error:
            # no call of any worker can succeed: the run is held, and no attempt is counted
            await self._hold(error.public)
            await self._give_back(execution, str(error))
        except QueueEvalError:
            raise
        except (Exception, SystemExit) as error:
            claim = execution.claim
            log.exception(
                "unexpected error in a case; the attempt counts",
                extra={"event": "crashed", "case_id": claim.case_id, "execution": claim.execution},
            )
            await self._fail(execution, f"{type(error).__name__}: {error}")

    async def _carry_out(self, execution: Execution) -> None:
        """Claim → permit → judge → store → finish. Another worker may repeat each step."""
        # 1. claim: Redis has handed the case out; what it handed out is checked
        case = await self._claimed_case(execution)
        if case is None:
            return  # it ended before this execution, or by what it was found to be
        # 2. permit, 3. judge: every judge call of a metric takes a permit of the limiter first
        results = await self._scorer.score(case, skip=execution.kept_names, meter=execution.meter)
        decision = await self._decide(execution, results)
        match decision:
            case Accept():
                # 4. store: the result is durable before the case is called done
                metrics = await self._records.store_result(execution, results)
                # 5. finish; the run's counters have the scores of a result that was opened again already
                await self._finish(execution, dead=None, results=metrics if execution.result_number == 1 else results)
            case Retry(delay_s):
                reason = "; ".join(f"{m.name}: {m.error}" for m in results if m.error)
                await self._records.note(execution, Ending.RETRIED, results, reason)
                await self._release(execution, delay_s=delay_s, consume=True)
            case DeadLetter(reason):
                await self._dead_letter(execution, results, reason)

    async def _claimed_case(self, execution: Execution) -> Case | None:
        """Return the case to score. None where its execution has ended here."""
        claim = execution.claim
        if not is_case_id(claim.case_id):
            # no name in the store can be made of it, and no report knows it
            log.warning(
                "Redis handed out a case that was not enqueued; it is dead",
                extra={"event": "unknown_case", "case_id": claim.case_id[:80]},
            )
            await self._finish(execution, dead="no case of this name was enqueued", results=())
        elif claim.delivery > 1 and await self._records.is_scored(execution):
            # a worker died between storing the result and finishing the case
            await self._finish(execution, dead=None, results=())
        elif claim.broken:
            await self._dead_letter(execution, (), f"its entry in Redis cannot be read: {claim.broken}")
        elif claim.crashes >= MAX_CRASHES:
            await self._dead_letter(execution, (), f"{claim.crashes} workers died with it or lost it")
        else:
            return await self._loaded(execution)
        return None

    async def _loaded(self, execution: Execution) -> Case | None:
        claim = execution.claim
        data = await self._records.payload(claim)
        if not data:
            await self._dead_letter(execution, (), f"its payload {objects.payload(claim.case_id)} is not in the store")
            return None
        execution.case = _authentic(claim.case_id, data)
        if execution.case is None:
            await self._dead_letter(execution, (), "its payload in Redis is not the case that was enqueued")
            return None
        if claim.delivery > 1:
            execution.kept = await self._records.kept_scores(execution)
        return execution.case

    async def _decide(self, execution: Execution, results: tuple[MetricResult, ...]) -> Accept | Retry | DeadLetter:
        errors = [(m.name, m.error, m.retriable) for m in results if m.error]
        if any(retriable for *_, retriable in errors) and self._scorer.judge_suspected_down:
            # it may be the judge and not the case: a failing probe raises, and the attempt is not counted
            await self._judge_check.must_serve(execution.meter)
        return after_attempt(
            errors,
            metrics=len(results) + len(execution.kept),
            attempt=execution.claim.attempt,
            max_attempts=self._attempts.most,
            backoff=self._attempts.backoff,
            jitter=self._chance(),
        )

    async def _fail(self, execution: Execution, reason: str) -> None:
        """End an attempt that came to no decision about its metrics."""
        finished, attempt = tuple(execution.meter.finished), execution.claim.attempt
        if attempt >= self._attempts.most:
            reason = f"attempt {attempt} of {self._attempts.most} failed: {reason}"
            await self._dead_letter(execution, finished, reason[:MOST_REASON])
            return
        await self._records.note(execution, Ending.RETRIED, finished, reason[:MOST_REASON])
        delay_s = self._attempts.backoff.delay_s(attempt, jitter=self._chance())
        await self._release(execution, delay_s=delay_s, consume=True)

    async def _dead_letter(self, execution: Execution, results: tuple[MetricResult, ...], reason: str) -> None:
        claim = execution.claim
        name = await self._records.store_dead_letter(execution, results, reason)
        # the reason stands there: a judge's words may repeat the prompt, and a log has other readers than the store
        log.warning(
            "case is dead; its record has the reason",
            extra={"event": "dead", "case_id": claim.case_id, "execution": claim.execution, "record": name},
        )
        if not await self._finish(execution, dead=reason, results=results):
            await self._records.revoke(execution)

    async def _give_back(self, execution: Execution, reason: str) -> None:
        try:
            async with asyncio.timeout(RECORD_WITHIN_S):
                await self._records.note(execution, Ending.RELEASED, tuple(execution.meter.finished), reason)
        except (TimeoutError, QueueEvalError):
            # a store that is unavailable keeps no case from other workers: what it spent stays in the queue's counters
            # only
            log.warning(
                "the store is unavailable; what the case spent is in the counters only",
                extra={
                    "event": "usage_not_recorded",
                    "case_id": execution.claim.case_id,
                    "usage": asdict(execution.meter.usage),
                },
            )
        await self._release(execution, delay_s=0.0, consume=False)

    async def _hold(self, reason: str) -> None:
        log.error("run held; no call to the judge can succeed", extra={"event": "held", "reason": reason})
        await self._retrying.call(lambda: self._steering.hold(JUDGE_HOLD + reason))

    async def _finish(self, execution: Execution, *, dead: str | None, results: tuple[MetricResult, ...]) -> bool:
        """Return whether this execution held the case."""
        counters = execution.counters | {
            "metric_results": float(sum(m.score is not None for m in results)),
            "metrics_passed": float(sum(bool(m.passed) for m in results)),
            "metric_errors": float(sum(m.error is not None for m in results)),
            **{f"{SCORED}{m.name}": 1.0 for m in results if m.score is not None},
            **{f"{PASSED}{m.name}": 1.0 for m in results if m.passed},
        }
        return await self._retrying.call(
            lambda: self._queue.finish(execution.claim, dead=dead, counters=_nonzero(counters))
        )

    async def _release(self, execution: Execution, *, delay_s: float, consume: bool) -> None:
        counters = _nonzero(execution.counters)
        await self._retrying.call(
            lambda: self._queue.release(execution.claim, delay_s=delay_s, consume=consume, counters=counters)
        )


def _authentic(case_id: str, payload: bytes) -> Case | None:
    """Return the case; None for anything else: a Redis user must not change a case."""
    try:
        case = Case.from_json(payload)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return case if case.case_id == case_id and case.is_authentic else None


def _nonzero(counters: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in counters.items() if value}
