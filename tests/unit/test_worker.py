"""The worker's loop and one execution, on the queue and the store in memory."""

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

from queue_eval.core import objects
from queue_eval.core.attempt import MAX_CRASHES, Backoff, ErrorClass
from queue_eval.core.case import Case, CaseIdentity
from queue_eval.core.ending import Ending
from queue_eval.core.errors import EXIT_ABORTED, ConfigError, NoInputError, UnavailableError
from queue_eval.core.meter import CaseMeter
from queue_eval.core.record import MetricResult, Record
from queue_eval.core.run import RunState
from queue_eval.core.usage import Usage
from queue_eval.ports.clock import Clock
from queue_eval.ports.judge_error import JudgeError
from queue_eval.ports.queue import Entry
from queue_eval.producer.history import History
from queue_eval.retry_while_unavailable import RetryWhileUnavailable
from queue_eval.worker.alive import Alive
from queue_eval.worker.case_executor import Attempts, CaseExecutor
from queue_eval.worker.prober import Prober
from queue_eval.worker.records import Records
from queue_eval.worker.watchdog import Watchdog
from queue_eval.worker.worker import Capacity, Liveness, Worker
from testkit.fakes.clock import FakeClock
from testkit.fakes.memory_queue import MemoryClaiming, MemoryEnqueueing, MemoryRun, MemorySteering
from testkit.fakes.memory_store import MemoryStore

FIELDS = {CaseIdentity().of("single", fields): fields for fields in ({"input": "a"}, {"input": "b"}, {"input": "c"})}
A, B, C = FIELDS


class FakeScorer:
    """Scores as it was made to: a number, an error message with retriable True, or an exception."""

    def __init__(self) -> None:
        self.plan: dict[str, list[Any]] = {}
        self.scored: list[tuple[str, frozenset[str]]] = []
        self.judge_suspected_down = False
        self.waiting = 0
        self.calls_ended = 0
        self.probes = 0
        self.served_by_a_probe = False
        self.probe_error: JudgeError | None = None
        self.probe_blocked: asyncio.Event | None = None
        self.blocked: asyncio.Event | None = None

    async def score(self, case: Case, *, skip: frozenset[str], meter: CaseMeter) -> tuple[MetricResult, ...]:
        self.scored.append((case.case_id, skip))
        if self.blocked:
            await self.blocked.wait()
        steps = self.plan.get(case.case_id, [{"F": 1.0}])
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        if isinstance(step, Exception):
            raise step
        meter.metric().admitted(10, 5)
        return tuple(_result(name, value) for name, value in step.items() if name not in skip)

    async def probe(self, meter: CaseMeter) -> None:
        meter.metric().admitted(1, 1)
        self.probes += 1
        await asyncio.sleep(0)
        if self.served_by_a_probe:
            self.judge_suspected_down = False
        if self.probe_blocked:
            await self.probe_blocked.wait()
        if self.probe_error:
            raise self.probe_error

    async def close(self) -> None:
        """Nothing is held."""


def _result(name: str, value: Any) -> MetricResult:
    if isinstance(value, str):
        return MetricResult(name=name, threshold=0.5, error=value, retriable="retry" in value)
    return MetricResult(name=name, threshold=0.5, score=value, passed=value >= 0.5)


class World:
    """A run in memory and a worker on it."""

    def __init__(self, *case_ids: str) -> None:
        self.clock = FakeClock()
        self.run = MemoryRun(now=self.clock.now, manifest="m")
        self.store = MemoryStore()
        self.scorer = FakeScorer()
        self.queue = MemoryClaiming(self.run)
        self.steering = MemorySteering(self.run)
        self.case_ids = case_ids

    async def sealed(self) -> "World":
        entries = []
        for case_id in self.case_ids:
            payload = Case(case_id=case_id, kind="single", fields=FIELDS[case_id], place="c:1").to_json()
            entries.append(Entry(case_id=case_id, payload=payload, size_bytes=len(payload), description=""))
        producer = MemoryEnqueueing(self.run)
        await producer.enqueue(entries)
        await producer.seal(len(entries))
        return self

    def worker(
        self, *, cases: int = 4, grace_s: float = 1.0, unknown_for_s: float = 0.0, alive_file: Path | None = None
    ) -> Worker:
        retrying = RetryWhileUnavailable(sleep=self.clock.sleep, chance=lambda: 0.0, now=self.clock.now)
        self.executor = CaseExecutor(
            queue=self.queue,
            steering=self.steering,
            records=Records(self.store, run_id="r", worker="w", now=self.clock.now),
            scorer=self.scorer,
            retrying=retrying,
            attempts=Attempts(most=3, backoff=Backoff(base_s=0.001, max_s=0.001)),
            now=self.clock.now,
            chance=lambda: 0.0,
        )
        prober = Prober(
            run_id="r", worker="w", steering=self.steering, store=self.store, scorer=self.scorer, interval_s=0.0, now=self.clock.now
        )  # fmt: skip
        return Worker(
            queue=self.queue,
            executor=self.executor,
            scorer=self.scorer,
            prober=prober,
            retrying=retrying,
            capacity=Capacity(cases=cases, size_bytes=1_000_000, grace_s=grace_s),
            liveness=Liveness(lease_s=12.0, watchdog=Watchdog(patience_s=math.inf), alive_file=alive_file),
            clock=Clock(now=self.clock.now, sleep=asyncio.sleep, chance=lambda: 0.0),
            unknown_for_s=unknown_for_s,
        )

    def records(self, prefix: str) -> list[Record]:
        return [Record.from_json(data) for name, data in self.store.objects.items() if name.startswith(prefix)]

    async def tick(self) -> None:
        """Time passes, so that delayed cases become due."""
        while True:
            self.clock.advance(0.01)
            await asyncio.sleep(0.005)


async def work(world: World, **options: Any) -> int:
    ticking = asyncio.create_task(world.tick())
    try:
        async with asyncio.timeout(10):
            return await world.worker(**options).run()
    finally:
        ticking.cancel()


async def test_it_leaves_with_0_when_the_run_is_drained() -> None:
    world = await World(A, B, C).sealed()
    assert await work(world, cases=2) == 0
    assert world.run.state is RunState.DRAINED
    assert {r.case_id for r in world.records(objects.RESULTS)} == {A, B, C}
    assert world.run.counters["judge_calls"] == 3


async def test_it_stays_while_the_run_is_open_or_others_hold_cases() -> None:
    world = await World(A).sealed()
    (held,) = (await MemoryClaiming(world.run, worker="other").claim(1, used_bytes=0, capacity_bytes=1000)).claims
    worker = asyncio.create_task(world.worker().run())
    await asyncio.sleep(0.2)
    assert not worker.done()
    await world.queue.finish(held, dead=None, counters={})
    assert await asyncio.wait_for(worker, 5) == 0


async def test_i11_the_result_is_stored_before_the_case_is_terminal() -> None:
    world = await World(A).sealed()
    order: list[str] = []
    finish, create = world.queue.finish, world.store.create

    async def noted_finish(*args: Any, **kwargs: Any) -> bool:
        order.append("finish")
        return await finish(*args, **kwargs)

    async def noted_create(name: str, data: bytes) -> bool:
        order.append(name)
        return await create(name, data)

    world.queue.finish, world.store.create = noted_finish, noted_create  # type: ignore[method-assign]
    await work(world)
    assert order == [objects.result(A), "finish"]


async def test_a_retried_case_pays_only_for_the_metrics_that_failed() -> None:
    world = await World(A).sealed()
    world.scorer.plan[A] = [{"F": 0.9, "G": "retry: timeout"}, {"F": 0.1, "G": 0.7}]
    assert await work(world) == 0
    assert world.scorer.scored == [(A, frozenset()), (A, frozenset({"F"}))]
    (result,) = world.records(objects.RESULTS)
    assert {m.name: m.score for m in result.metrics} == {"F": 0.9, "G": 0.7}
    (retried,) = world.records(objects.EXECUTIONS)
    assert retried.ending is Ending.RETRIED
    # each call is in exactly one record
    assert result.usage.judge_calls + retried.usage.judge_calls == 2


async def test_after_the_last_attempt_a_case_without_scores_is_dead_with_its_reason() -> None:
    world = await World(A, B).sealed()
    world.scorer.plan[A] = [{"F": "retry: timeout"}]
    assert await work(world) == 0
    assert (world.run.counts["dead"], world.run.counts["scored"]) == (1, 1)
    (dead,) = [r for r in world.records(objects.EXECUTIONS) if r.ending is Ending.DEAD]
    assert "3 of 3 attempts; F: retry: timeout" in str(dead.reason)
    assert len([1 for case_id, _ in world.scorer.scored if case_id == A]) == 3


async def test_a_result_that_is_there_already_is_not_paid_for_again() -> None:
    world = await World(A).sealed()
    dying = MemoryClaiming(world.run, worker="dying")
    (claim,) = (await dying.claim(1, used_bytes=0, capacity_bytes=1000)).claims
    record = Record(
        run_id="r",
        case_id=A,
        ending=Ending.SCORED,
        execution=claim.execution,
        delivery=1,
        worker="dying",
        started_at=0,
        ended_at=1,
    )
    await world.store.create(objects.result(A), record.to_json())
    world.clock.advance(13.0)  # it died between storing and saying so
    assert await work(world) == 0
    assert world.scorer.scored == []
    assert world.run.counts["scored"] == 1


FATAL = JudgeError("HTTP 403", ErrorClass.RUN_FATAL)


async def test_a_run_fatal_error_holds_all_and_burns_no_attempt() -> None:
    world = await World(A).sealed()
    world.scorer.plan[A] = [FATAL]
    world.scorer.probe_error = FATAL
    task = asyncio.create_task(work(world))
    while world.run.hold is None:
        await asyncio.sleep(0.01)
    world.scorer.plan[A], world.scorer.probe_error = [{"F": 1.0}], None
    assert await task == 0
    assert (await world.steering.stats()).hold is None
    assert len(world.records(objects.RESULTS)) == 1
    assert world.run.jobs[A].attempts == 1


async def test_an_execution_is_in_the_books_once_however_it_ends() -> None:
    world = await World(A).sealed()
    finishing = asyncio.Event()
    finish = world.queue.finish

    async def slow_finish(*args: Any, **kwargs: Any) -> bool:
        finishing.set()
        await asyncio.Event().wait()
        return await finish(*args, **kwargs)

    world.queue.finish = slow_finish  # type: ignore[method-assign]
    worker = world.worker(grace_s=0.01)
    task = asyncio.create_task(worker.run())
    await finishing.wait()
    worker.stop()
    await task
    world.queue.finish = finish  # type: ignore[method-assign]
    # the result is stored and the case was given back: nothing of it is stored a second time, and nothing is asked again
    assert await work(world) == 0
    assert len(world.scorer.scored) == 1
    assert [r.usage.judge_calls for r in world.records("")] == [1]


async def test_what_a_case_scored_before_a_defect_buried_it_is_kept() -> None:
    world = await World(A).sealed()
    world.scorer.plan[A] = [{"F": 0.9, "G": "retry: timeout"}, ZeroDivisionError("oops")]
    assert await work(world) == 0
    (dead,) = [r for r in world.records(objects.EXECUTIONS) if r.ending is Ending.DEAD]
    assert {m.name: m.score for m in dead.metrics} == {"F": 0.9}


@pytest.mark.parametrize("ends", ["scored", "dead"])
async def test_a_case_that_was_opened_again_keeps_its_scores(ends: str) -> None:
    """It was scored but for G. Only G is asked for, and what was scored stands in its outcome, whatever that is."""
    world = await World(A).sealed()
    world.scorer.plan[A] = [
        {"F": 0.8, "G": "refused"},
        ZeroDivisionError("oops") if ends == "dead" else {"F": 0.1, "G": 0.6},
    ]
    assert await work(world) == 0
    (first,) = world.records(objects.RESULTS)
    await world.store.create(objects.revocation(A, first.execution), b"{}")
    # a straggler that was beaten thought otherwise of F
    beaten = first.model_copy(
        update={"execution": "beaten", "ending": Ending.SUPERSEDED, "metrics": (_result("F", 0.2),)}
    )
    await world.store.create(objects.execution(A, "beaten", Ending.SUPERSEDED), beaten.to_json())
    assert await MemoryEnqueueing(world.run).reopen([world.run.jobs[A].entry]) == 1
    world.run.jobs[A].crashes = MAX_CRASHES if ends == "dead" else 0
    assert await work(world) == 0
    records = [*world.records(objects.RESULTS), *world.records(objects.EXECUTIONS)]
    (outcome,) = [r for r in records if r.execution not in (first.execution, "beaten")]
    assert (outcome.ending, world.run.counts[ends]) == (Ending(ends), 1)
    assert {m.name: m.score for m in outcome.metrics} == ({"F": 0.8} if ends == "dead" else {"F": 0.8, "G": 0.6})
    assert all(m.usage == Usage() for m in outcome.metrics if m.name == "F")
    assert world.scorer.scored[1:] == ([] if ends == "dead" else [(A, frozenset({"F"}))])


async def test_scores_of_an_earlier_redis_are_found_again() -> None:
    """The producer passes on how many executions the store knows of; a fresh Redis counts on from there."""
    world = await World(A).sealed()
    world.run.jobs[A].deliveries = 1
    earlier = Record(
        run_id="r", case_id=A, ending=Ending.RELEASED, execution="old-1", delivery=1, worker="w", started_at=0, ended_at=1, metrics=(_result("F", 0.8),)
    )  # fmt: skip
    await world.store.create(objects.execution(A, "old-1", Ending.RELEASED), earlier.to_json())
    world.scorer.plan[A] = [{"F": 0.1, "G": 1.0}]
    assert await work(world) == 0
    assert world.scorer.scored == [(A, frozenset({"F"}))]


async def test_a_defect_while_scoring_costs_attempts_and_then_the_case_alone() -> None:
    world = await World(A, B).sealed()
    world.scorer.plan[A] = [ZeroDivisionError("oops")]
    assert await work(world) == 0
    assert (world.run.counts["dead"], world.run.counts["scored"]) == (1, 1)
    reasons = {r.case_id: str(r.reason) for r in world.records(objects.EXECUTIONS) if r.ending is Ending.DEAD}
    assert "ZeroDivisionError: oops" in reasons[A]


@pytest.mark.parametrize(
    "payload",
    [
        b"5",
        b"{",
        b"{}",
        b"[" * 1_500_000,
        Case(case_id=B, kind="single", fields=FIELDS[B], place="c:1").to_json(),
        Case(case_id=A, kind="single", fields={"input": "a better answer"}, place="c:1").to_json(),
        Case(case_id=f"{A}-2", kind="single", fields=FIELDS[A], place="c:1").to_json(),
    ],
)
async def test_a_writer_to_redis_does_not_choose_what_is_scored(payload: bytes) -> None:
    world = await World(A, B).sealed()
    world.run.jobs[A].entry = Entry(case_id=A, payload=payload, size_bytes=1, description="")
    assert await work(world) == 0
    assert [case_id for case_id, _ in world.scorer.scored] == [B]
    (dead,) = world.records(objects.EXECUTIONS)
    assert (dead.case_id, dead.reason) == (A, "its payload in Redis is not the case that was enqueued")


@pytest.mark.parametrize("name", ["../../evil", f"{A}-/../evil", f"{A}-0", "x" * 300, ""])
async def test_a_name_that_cannot_have_been_given_is_no_case_and_makes_no_object(name: str) -> None:
    world = await World(A).sealed()
    await MemoryEnqueueing(world.run).enqueue([Entry(case_id=name, payload=b"{", size_bytes=1, description="")])
    assert await work(world) == 0
    assert [case_id for case_id, _ in world.scorer.scored] == [A]
    assert world.run.counts["dead"] == 1
    assert len(world.store.objects) == 1  # A's result


async def test_i05_scores_that_are_there_when_a_case_is_given_back_are_kept() -> None:
    world = await World(A).sealed()
    world.scorer.blocked = asyncio.Event()
    score = world.scorer.score

    async def half(case: Case, *, skip: frozenset[str], meter: CaseMeter) -> tuple[MetricResult, ...]:
        if "F" not in skip:
            meter.metric().admitted(1, 1)
            meter.finished.append(_result("F", 0.75))
        return await score(case, skip=skip, meter=meter)

    world.scorer.score = half  # type: ignore[method-assign]
    worker = world.worker(grace_s=0.01)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(0.05)
    worker.stop()
    assert await task == 75
    world.scorer.blocked.set()
    world.scorer.plan[A] = [{"F": 0.1, "G": 1.0}]
    assert await work(world) == 0
    (result,) = world.records(objects.RESULTS)
    assert {m.name: m.score for m in result.metrics} == {"F": 0.75, "G": 1.0}


async def test_a_heartbeat_that_ends_ends_the_worker() -> None:
    world = await World(A).sealed()
    world.scorer.blocked = asyncio.Event()

    async def broken(*_: Any, **__: Any) -> list[Any]:
        raise ConfigError("redis refuses us")

    world.queue.heartbeat = broken  # type: ignore[method-assign]
    with pytest.raises(ConfigError):
        await work(world)


async def test_an_attempt_is_not_blamed_on_a_case_when_the_judge_serves_none() -> None:
    world = await World(A).sealed()
    world.scorer.plan[A] = [
        {"F": "retry: 503"},
        {"F": "retry: 503"},
        {"F": "retry: 503"},
        {"F": "retry: 503"},
        {"F": 1.0},
    ]
    world.scorer.judge_suspected_down = True
    world.scorer.probe_error = JudgeError("HTTP 503", ErrorClass.RETRY)
    task = asyncio.create_task(work(world))
    while world.run.hold is None:
        await asyncio.sleep(0.01)
    assert "serves no call" in world.run.hold
    world.scorer.judge_suspected_down, world.scorer.probe_error = False, None
    world.scorer.plan[A] = [{"F": 1.0}]
    assert await task == 0
    assert world.run.jobs[A].attempts == 1


async def test_cases_that_fail_together_ask_once_whether_the_judge_serves() -> None:
    world = await World(A, B, C).sealed()
    world.scorer.plan = {case_id: [{"F": "retry: 503"}] for case_id in (A, B, C)}
    world.scorer.judge_suspected_down, world.scorer.probe_error = True, JudgeError("HTTP 503", ErrorClass.RETRY)
    world.worker()
    claims = (await world.queue.claim(3, used_bytes=0, capacity_bytes=1_000_000)).claims
    await asyncio.gather(*(world.executor.execute(claim) for claim in claims))
    assert (world.scorer.probes, world.run.hold) == (1, "judge: the judge serves no call: HTTP 503")
    assert {job.attempts for job in world.run.jobs.values()} == {0}, "none of them is to blame"
    # what was found out does not hold for long, and of a judge that has answered since nothing is asked
    world.clock.advance(10)
    world.scorer.probe_error = None
    world.run.hold = None
    (claim, *_) = (await world.queue.claim(1, used_bytes=0, capacity_bytes=1_000_000)).claims
    await world.executor.execute(claim)
    assert (world.scorer.probes, world.run.hold) == (2, None)
    world.scorer.judge_suspected_down = True
    claims = (await world.queue.claim(3, used_bytes=0, capacity_bytes=1_000_000)).claims
    world.scorer.served_by_a_probe = True
    await asyncio.gather(*(world.executor.execute(claim) for claim in claims))
    assert (len(claims), world.scorer.probes) == (2, 3)


async def test_an_operators_hold_is_not_lifted_by_a_probe() -> None:
    world = await World(A).sealed()
    world.run.hold = "operator: lunch"
    worker = asyncio.create_task(world.worker().run())
    await asyncio.sleep(0.2)
    assert world.run.hold == "operator: lunch"
    await world.steering.hold(None)
    assert await asyncio.wait_for(worker, 5) == 0


async def test_i18_stopping_finishes_what_is_in_flight_within_the_grace_period() -> None:
    world = await World(A, B, C).sealed()
    world.scorer.blocked = asyncio.Event()
    worker = world.worker(cases=2, grace_s=5.0)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(0.05)
    worker.stop()
    await asyncio.sleep(0.05)
    assert not task.done()
    world.scorer.blocked.set()
    assert await task == 75
    assert (world.run.counts["scored"], world.run.counts["ready"]) == (2, 1)


async def test_i18_what_is_not_done_when_the_grace_period_ends_is_given_back_uncounted() -> None:
    world = await World(A).sealed()
    world.scorer.blocked = asyncio.Event()
    worker = world.worker(grace_s=0.05)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(0.05)
    worker.stop()
    assert await task == 75
    job = world.run.jobs[A]
    assert (job.state, job.attempts, job.deliveries) == ("ready", 0, 1)


async def test_i16_a_lost_lease_cancels_the_work() -> None:
    world = await World(A).sealed()
    world.scorer.blocked = asyncio.Event()
    worker = world.worker()
    worker._heartbeat._interval_s = 0.01
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(0.05)
    world.run.jobs[A].leases = {"another-one": 1e12}
    await asyncio.sleep(0.1)
    assert not worker._in_flight
    worker.stop()
    await task
    assert list(world.run.jobs[A].leases) == ["another-one"]


async def test_i05_a_lost_execution_is_left_alone_while_it_puts_down_what_it_spent() -> None:
    world = await World(A).sealed()
    world.scorer.blocked = asyncio.Event()
    score = world.scorer.score
    settled: list[bool] = []

    async def slow_to_settle(case: Case, *, skip: frozenset[str], meter: CaseMeter) -> tuple[MetricResult, ...]:
        meter.metric().admitted(5, 5)
        try:
            return await score(case, skip=skip, meter=meter)
        finally:
            await asyncio.sleep(0.1)
            settled.append(True)

    create = world.store.create

    async def slow_to_store(name: str, data: bytes) -> bool:
        await asyncio.sleep(0.05)
        return await create(name, data)

    world.scorer.score = slow_to_settle  # type: ignore[method-assign]
    world.store.create = slow_to_store  # type: ignore[method-assign]
    worker = world.worker()
    worker._heartbeat._interval_s = 0.01
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(0.05)
    world.run.jobs[A].leases = {"another-one": 1e12}
    await asyncio.sleep(0.3)
    worker.stop()
    await task
    assert settled
    (record,) = world.records(objects.EXECUTIONS)
    assert (record.ending, record.usage.judge_calls) == (Ending.RELEASED, 1)


async def test_i05_a_result_whose_writing_is_cancelled_is_in_the_books_once() -> None:
    world = await World(A).sealed()
    world.scorer.plan[A] = [{"F": 1.0}]
    create, began = world.store.create, asyncio.Event()

    async def slow(name: str, data: bytes) -> bool:
        began.set()
        await asyncio.sleep(0.1)
        return await create(name, data)

    world.store.create = slow  # type: ignore[method-assign]
    worker = world.worker(grace_s=0.0)
    task = asyncio.create_task(worker.run())
    await began.wait()
    worker.stop()
    assert await task == 75
    assert len(world.records("")) == 1


async def test_i13_a_torn_result_is_replaced_and_torn_records_are_passed_over() -> None:
    world = await World(A).sealed()
    world.scorer.plan[A] = [{"F": 1.0}]
    (claim,) = (await world.queue.claim(1, used_bytes=0, capacity_bytes=1000)).claims
    await world.queue.release(claim, delay_s=0, consume=False, counters={})
    world.store.objects[objects.result(A)] = b'{"version": 1, "run'
    world.store.objects[objects.execution(A, "e-1", Ending.RETRIED)] = b"{"
    assert await work(world) == 0
    (result,) = world.records(objects.RESULTS)
    assert result.ending is Ending.SCORED


async def test_i18_a_worker_that_must_leave_while_redis_is_away_does_not_wait_for_it() -> None:
    world = await World(A).sealed()

    async def away(*_: Any, **__: Any) -> Any:
        raise UnavailableError("redis is away")

    world.queue.claim = away  # type: ignore[method-assign]
    patience = RetryWhileUnavailable(sleep=asyncio.sleep, chance=lambda: 0.0, now=world.clock.now)
    worker = world.worker(grace_s=0.0)
    worker._retrying = patience
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(0.05)
    worker.stop()
    async with asyncio.timeout(8):
        assert await task == 75


async def test_i18_a_worker_that_must_leave_while_the_judge_hangs_does_not_wait_for_it() -> None:
    world = await World(A, B).sealed()
    world.scorer.plan[A] = [FATAL]
    world.scorer.probe_blocked = asyncio.Event()
    worker = world.worker(cases=1, grace_s=0.0)
    task = asyncio.create_task(worker.run())
    while not world.run.hold:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    worker.stop()
    async with asyncio.timeout(3):
        assert await task == 75
    # what the probe may have cost is in the books all the same
    assert [r.usage.judge_calls for r in world.records(objects.EXECUTIONS) if r.ending is Ending.OVERHEAD] == [1]


async def test_i18_cases_whose_claim_was_not_waited_for_are_given_back_before_the_grace_period(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("queue_eval.worker.worker.STOPPED_CLAIM_S", 0.01)
    world = await World(A, B).sealed()
    world.scorer.blocked = asyncio.Event()
    claim, unread = world.queue.claim, []

    async def late(limit: int, **room: Any) -> Any:
        if not world.run.held:
            return await claim(1, **room)
        if limit:
            unread.append(await claim(limit, **room))
            await asyncio.Event().wait()
        return unread.pop() if unread else await claim(0, **room)  # a claim sent again has the reply of the first

    world.queue.claim = late  # type: ignore[method-assign]
    worker = world.worker(grace_s=5.0)
    task = asyncio.create_task(worker.run())
    while not unread:
        await asyncio.sleep(0.005)
    assert world.run.jobs[B].state == "leased"
    worker.stop()
    async with asyncio.timeout(3):
        while world.run.jobs[B].state != "ready":
            await asyncio.sleep(0.005)
    assert not task.done()
    world.scorer.blocked.set()
    assert await task == 75
    # it is in the books as given back, not as one whose worker died
    endings = [r.ending for r in world.records(objects.EXECUTIONS) if r.case_id == B]
    assert endings == [Ending.RELEASED] * world.run.jobs[B].deliveries


async def test_i20_a_letter_that_was_refused_does_not_declare_its_case_dead() -> None:
    world = await World(A).sealed()
    world.scorer.plan[A] = [{"F": "content filter"}]
    world.scorer.blocked = asyncio.Event()
    worker = world.worker(grace_s=0.0)
    task = asyncio.create_task(worker.run())
    while not world.scorer.scored:
        await asyncio.sleep(0.005)
    world.run.jobs[A].leases["another"] = 1e12
    world.scorer.blocked.set()
    while world.run.held and worker._in_flight:
        await asyncio.sleep(0.005)
    worker.stop()
    assert await task == 75
    # it is in the books; but should Redis forget the run, the case is judged
    assert [r.ending for r in world.records(objects.EXECUTIONS)] == [Ending.DEAD]
    assert (await History.of(world.store)).dead_letters == {}


async def test_a_broken_entry_is_buried_and_the_others_are_scored() -> None:
    world = await World(A, B).sealed()
    world.run.jobs[A].entry = Entry(case_id=A, payload=b"", size_bytes=0, description="")
    assert await work(world) == 0
    assert (world.run.counts["dead"], world.run.counts["scored"]) == (1, 1)
    (dead,) = world.records(objects.EXECUTIONS)
    assert (await History.of(world.store)).dead_letters == {A: [dead.execution]}
    assert f"payloads/{A}.json is not in the store" in str(dead.reason)


async def test_a_failing_store_ends_the_worker_and_loses_nothing() -> None:
    from queue_eval.core.errors import StoreError

    world = await World(A).sealed()
    world.store.failing = True
    with pytest.raises(StoreError):
        await work(world)
    assert world.run.counts["scored"] == 0


async def test_a_worker_of_an_aborted_run_gives_back_what_it_holds() -> None:
    world = await World(A, B).sealed()
    world.scorer.blocked = asyncio.Event()
    working = asyncio.create_task(work(world))
    while len(world.scorer.scored) < 2:
        await asyncio.sleep(0.005)
    await world.steering.end(RunState.ABORTED)
    assert await working == EXIT_ABORTED
    assert (world.run.counts["ready"], world.run.counts["leased"]) == (2, 0)


async def test_a_worker_waits_for_a_run_that_is_about_to_be_enqueued() -> None:
    world = World(A)
    world.run.manifest = None
    with pytest.raises(NoInputError):
        await work(world)
    working = asyncio.create_task(work(world, unknown_for_s=1e9))
    for _ in range(20):
        await asyncio.sleep(0)
    world.run.manifest = "m"
    await world.sealed()
    assert await working == 0


async def test_the_file_grows_old_only_while_calls_neither_end_nor_wait(tmp_path: Path) -> None:
    resting, ended, file = True, 0, tmp_path / "alive"
    alive = Alive(file, resting=lambda: resting, ended=lambda: ended)

    def touched() -> bool:
        file.unlink(missing_ok=True)
        alive.beat()
        return file.exists()

    assert touched()  # waits for the limiter, or has nothing to do
    resting = False
    assert not touched()  # calls are under way, and none has ended since
    ended = 1
    assert touched()
    assert not touched()
    resting = True
    assert touched()


async def test_i17_trouble_that_is_no_cases_fault_costs_no_attempt_and_what_was_spent_is_booked() -> None:
    world = await World(A).sealed()
    score = world.scorer.score

    async def trouble(case: Case, *, skip: frozenset[str], meter: CaseMeter) -> tuple[MetricResult, ...]:
        await score(case, skip=skip, meter=meter)
        raise UnavailableError("the limiter cannot serve")

    world.scorer.score = trouble  # type: ignore[method-assign]
    with pytest.raises(UnavailableError):
        await work(world)
    assert (world.run.jobs[A].state, world.run.jobs[A].attempts) == ("ready", 0)
    (released,) = world.records(objects.EXECUTIONS)
    assert (released.ending, released.usage.input_tokens) == (Ending.RELEASED, 10)
