"""Carries out what is delivered to this worker, from the claim to its end."""

import asyncio
import logging
from dataclasses import asdict

from queue_eval.core import objects
from queue_eval.core.attempt import MAX_CRASHES, Accept, Backoff, DeadLetter, Retry, after_attempt
from queue_eval.core.case import Case, is_case_id
from queue_eval.core.ending import Ending
from queue_eval.core.errors import QueueEvalError
from queue_eval.core.meter import CaseMeter
from queue_eval.core.record import MetricResult, Record
from queue_eval.core.usage import Usage
from queue_eval.ports.clock import Chance, Now
from queue_eval.ports.judge_error import JudgeError
from queue_eval.ports.queue import Claim, Claiming, Steering
from queue_eval.ports.scorer import Scorer
from queue_eval.ports.store import Store
from queue_eval.retry_while_unavailable import RetryWhileUnavailable
from queue_eval.worker.execution import Execution
from queue_eval.worker.judge_check import JudgeCheck

log = logging.getLogger("queue_eval.worker")

NOTE_WITHIN_S = 3.0  # for what a case spent that is given back
JUDGE_HOLD = "judge: "  # a hold that begins so is lifted by a probe that succeeds


class CaseExecutor:
    """Carries claims out. Every path ends in exactly one of finish or release, after what it spent is stored."""

    def __init__(
        self,
        *,
        run_id: str,
        worker: str,
        queue: Claiming,
        steering: Steering,
        store: Store,
        scorer: Scorer,
        patience: RetryWhileUnavailable,
        max_attempts: int,
        backoff: Backoff,
        now: Now,
        chance: Chance,
    ) -> None:
        self._run_id = run_id
        self._worker = worker
        self._queue = queue
        self._steering = steering
        self._store = store
        self._scorer = scorer
        self._retrying = patience
        self._max_attempts = max_attempts
        self._backoff = backoff
        self._now = now
        self._chance = chance
        self._under_way: dict[tuple[str, str], Execution] = {}  # by case and execution
        self._judge_check = JudgeCheck(scorer, now)

    async def execute(self, claim: Claim) -> None:
        """Cancelling it gives the case back without counting the attempt."""
        delivery = self._under_way[claim.case_id, claim.execution] = self._begun(claim)
        try:
            await self._attempted(delivery)
        except asyncio.CancelledError:
            await self._given_back(delivery, "the worker is leaving")
            raise
        except QueueEvalError as error:
            # the store, the limiter or the configuration: no case's fault
            await self._given_back(delivery, str(error))
            raise
        finally:
            del self._under_way[claim.case_id, claim.execution]

    def waited_s(self) -> dict[str, float]:
        """For how long each case under way has waited for the limiter."""
        return {case_id: delivery.meter.blocked.total_s for (case_id, _), delivery in self._under_way.items()}

    async def give_back(self, claim: Claim) -> None:
        """What a leaving worker was given and never began. It has a record too: a delivery without one passes for a worker that died."""
        await self._given_back(self._begun(claim), "the worker is leaving")

    async def _attempted(self, delivery: Execution) -> None:
        try:
            await self._carried_out(delivery)
        except JudgeError as error:
            # nobody's calls can succeed: everybody stops, and no attempt is counted
            await self._hold(str(error))
            await self._given_back(delivery, str(error))
        except QueueEvalError:
            raise
        except (Exception, SystemExit) as error:
            claim = delivery.claim
            log.exception("crashed", extra={"event": "crashed", "case_id": claim.case_id, "execution": claim.execution})
            await self._failed(delivery, f"{type(error).__name__}: {error}")

    async def _carried_out(self, delivery: Execution) -> None:
        claim = delivery.claim
        if not is_case_id(claim.case_id):
            # no name in the store can be made of it, and no report knows it
            log.warning("foreign", extra={"event": "unknown_case", "case_id": claim.case_id[:80]})
            await self._finish(delivery, dead="nobody enqueued a case of this name", results=())
        elif claim.delivery > 1 and await self._is_scored(delivery):
            # a worker died between storing the result and saying so
            await self._finish(delivery, dead=None, results=())
        elif claim.broken:
            await self._dead_letter(delivery, (), f"its entry in Redis cannot be read: {claim.broken}")
        elif claim.crashes >= MAX_CRASHES:
            await self._dead_letter(delivery, (), f"{claim.crashes} workers died with it or lost it")
        else:
            await self._scored(delivery)

    async def _is_scored(self, delivery: Execution) -> bool:
        """Whether the case has an accepted result. Keeps the scores of results that were opened again."""
        case_id = delivery.claim.case_id
        while record := Record.result(
            await self._store.get(objects.result(case_id, delivery.result_number)), of=case_id
        ):
            if await self._store.get(objects.revocation(case_id, record.execution)) is None:
                return True
            delivery.kept = tuple(m for m in record.metrics if m.score is not None)
            delivery.result_number += 1
        return False

    async def _scored(self, delivery: Execution) -> None:
        claim = delivery.claim
        data = claim.payload or await self._store.get(objects.payload(claim.case_id))
        if not data:
            await self._dead_letter(delivery, (), f"its payload {objects.payload(claim.case_id)} is not in the store")
            return
        if not (case := _authentic(claim.case_id, data)):
            await self._dead_letter(delivery, (), "its payload in Redis is not the case that was enqueued")
            return
        delivery.case = case
        if claim.delivery > 1:
            delivery.kept = await self._kept(delivery)
        skip = frozenset(m.name for m in delivery.kept)
        await self._decide(delivery, await self._scorer.score(case, skip=skip, meter=delivery.meter))

    async def _kept(self, delivery: Execution) -> tuple[MetricResult, ...]:
        """Scores of earlier executions, which need not be asked for again."""
        case_id = delivery.claim.case_id
        names = [name async for name in self._store.names(objects.executions_of(case_id))]
        kept: dict[str, MetricResult] = {}
        for stored in await self._store.get_many(names):
            if record := Record.whole(stored, of=case_id):
                kept |= {m.name: m for m in record.metrics if m.score is not None}
        # what stood in an accepted result stands in the next
        return tuple((kept | {m.name: m for m in delivery.kept}).values())

    async def _failed(self, delivery: Execution, reason: str) -> None:
        """The attempt is over without a decision about its metrics."""
        finished, attempt = tuple(delivery.meter.finished), delivery.claim.attempt
        if attempt >= self._max_attempts:
            reason = f"attempt {attempt} of {self._max_attempts} failed: {reason}"
            await self._dead_letter(delivery, finished, reason[:2000])
            return
        await self._note(delivery, Ending.RETRIED, finished, reason[:2000])
        await self._release(delivery, delay_s=self._backoff.delay_s(attempt, jitter=self._chance()), consume=True)

    async def _decide(self, delivery: Execution, results: tuple[MetricResult, ...]) -> None:
        claim = delivery.claim
        errors = [(m.name, m.error, m.retriable) for m in results if m.error]
        if any(retriable for *_, retriable in errors) and self._scorer.judge_suspected_down:
            # it may be the judge and not the case: a failing probe raises, and the attempt is not counted
            await self._judge_check.must_serve(delivery.meter)
        decision = after_attempt(
            errors,
            metrics=len(results) + len(delivery.kept),
            attempt=claim.attempt,
            max_attempts=self._max_attempts,
            backoff=self._backoff,
            jitter=self._chance(),
        )
        match decision:
            case Accept():
                await self._accept(delivery, results)
            case Retry(delay_s):
                reason = "; ".join(f"{name}: {error}" for name, error, _ in errors)
                await self._note(delivery, Ending.RETRIED, results, reason)
                await self._release(delivery, delay_s=delay_s, consume=True)
            case DeadLetter(reason):
                await self._dead_letter(delivery, results, reason)

    async def _accept(self, delivery: Execution, results: tuple[MetricResult, ...]) -> None:
        """The result is durable before the case is called done."""
        record = self._record(delivery, Ending.SCORED, (*_paid(delivery.kept), *results), None)
        name = objects.result(record.case_id, delivery.result_number)
        if not await self._stored(delivery, name, record) and not Record.result(
            await self._store.get(name), of=record.case_id
        ):
            # what stands there is torn, as a crash on a volume without hard links leaves it: it counts as absent
            await self._store.put(name, record.to_json())
            delivery.recorded = True
        if not delivery.recorded:
            await self._note(delivery, Ending.SUPERSEDED, results, "another execution's result was stored first")
        # the run's counters have those of a result that was opened again already
        await self._finish(delivery, dead=None, results=record.metrics if delivery.result_number == 1 else results)

    async def _dead_letter(self, delivery: Execution, results: tuple[MetricResult, ...], reason: str) -> None:
        record = self._record(delivery, Ending.DEAD, (*_paid(delivery.kept), *results), reason)
        name = objects.execution(record.case_id, record.execution, Ending.DEAD)
        await self._stored(delivery, name, record)
        delivery.recorded = True  # whoever wrote it: the name is this execution's own
        # why stands there: a judge's words may repeat the prompt, and a log has other readers than the store
        log.warning(
            "dead", extra={"event": "dead", "case_id": record.case_id, "execution": record.execution, "record": name}
        )
        if not await self._finish(delivery, dead=reason, results=results):
            # another execution holds it: should Redis forget the run now, this letter must not kill the case
            await self._store.create(
                objects.revocation(record.case_id, record.execution), b'{"reason":"another execution held it"}'
            )

    async def _given_back(self, delivery: Execution, reason: str) -> None:
        try:
            async with asyncio.timeout(NOTE_WITHIN_S):
                await self._note(delivery, Ending.RELEASED, tuple(delivery.meter.finished), reason)
        except (TimeoutError, QueueEvalError):
            # a store that is away keeps nobody's case: what it spent stays in the queue's counters only
            log.warning(
                "unnoted",
                extra={
                    "event": "usage_not_recorded",
                    "case_id": delivery.claim.case_id,
                    "usage": asdict(delivery.meter.usage),
                },
            )
        await self._release(delivery, delay_s=0.0, consume=False)

    async def _note(self, delivery: Execution, ending: Ending, results: tuple[MetricResult, ...], reason: str) -> None:
        """Keeps what an execution without an accepted result has spent, once: one without any record has died."""
        record = self._record(delivery, ending, results, reason)
        if delivery.recorded:
            return
        await self._stored(delivery, objects.execution(record.case_id, record.execution, ending), record)
        delivery.recorded = True

    async def _stored(self, delivery: Execution, name: str, record: Record) -> bool:
        """Creates the record. Who is cancelled meanwhile finds out whether it landed: what was spent is in the books once."""
        writing = asyncio.ensure_future(self._store.create(name, record.to_json()))
        try:
            delivery.recorded = await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait({writing}, timeout=NOTE_WITHIN_S)
            landed = writing.done() and not writing.cancelled() and not writing.exception()
            delivery.recorded = landed and writing.result()
            writing.cancel()
            raise
        return delivery.recorded

    async def _hold(self, reason: str) -> None:
        log.error("held", extra={"event": "held", "reason": reason})
        await self._retrying.call(lambda: self._steering.hold(JUDGE_HOLD + reason))

    async def _finish(self, delivery: Execution, *, dead: str | None, results: tuple[MetricResult, ...]) -> bool:
        counters = delivery.counters | {
            "metric_results": float(sum(m.score is not None for m in results)),
            "metrics_passed": float(sum(bool(m.passed) for m in results)),
            "metric_errors": float(sum(m.error is not None for m in results)),
        }
        return await self._retrying.call(
            lambda: self._queue.finish(delivery.claim, dead=dead, counters=_nonzero(counters))
        )

    async def _release(self, delivery: Execution, *, delay_s: float, consume: bool) -> None:
        counters = _nonzero(delivery.counters)
        await self._retrying.call(
            lambda: self._queue.release(delivery.claim, delay_s=delay_s, consume=consume, counters=counters)
        )

    def _record(
        self, delivery: Execution, ending: Ending, metrics: tuple[MetricResult, ...], reason: str | None
    ) -> Record:
        return delivery.record(ending, metrics, reason, run_id=self._run_id, worker=self._worker, ended_at=self._now())

    def _begun(self, claim: Claim) -> Execution:
        return Execution(claim=claim, case=None, meter=CaseMeter(self._now), started_at=self._now())


def _authentic(case_id: str, payload: bytes) -> Case | None:
    """None for what is no case or another one: who can write to Redis must not change what a case says."""
    try:
        case = Case.from_json(payload)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return case if case.case_id == case_id and case.is_authentic else None


def _paid(kept: tuple[MetricResult, ...]) -> tuple[MetricResult, ...]:
    """Scores of earlier executions, whose calls are in those executions' records."""
    return tuple(m.model_copy(update={"usage": Usage()}) for m in kept)


def _nonzero(counters: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in counters.items() if value}
