"""Hypothesis drives the queue in memory and on a real server in step, and a ledger of its own checks both."""

import asyncio
import itertools
import os
from collections.abc import Awaitable
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from redis.asyncio import Redis

from loadtest.redis_server import Server
from queue_eval.config.settings import WorkerSettings
from queue_eval.core.attempt import SUSPECT_AFTER
from queue_eval.core.errors import UnavailableError
from queue_eval.core.run import RunState
from queue_eval.ports import Claim, Entry
from queue_eval.queue.claim import RedisClaiming, WorkerIdentity
from queue_eval.testing.clock import FakeClock
from queue_eval.testing.memory_queue import MemoryClaiming, MemoryEnqueueing, MemoryRun, MemorySteering
from queue_eval.wiring.queues import RunQueue
from tests.contracts.test_queue import TEST_CLOCK

T = TypeVar("T")

CASES = ["a", "b", "c", "d", "e"]
WORKERS = ["w1", "w2", "w3"]
CAPACITY_BYTES = 1000
_runs = itertools.count()
_url = ""

case_ids = st.lists(st.sampled_from(CASES), min_size=1, max_size=5, unique=True)
workers = st.sampled_from(WORKERS)


def entry(case_id: str, earlier: int = 0) -> Entry:
    size = 700 if case_id == "e" else 100
    return Entry(
        case_id=case_id, payload=b'"%s"' % case_id.encode(), size_bytes=size, description=case_id, earlier=earlier
    )


def shape(claim: Claim) -> tuple[Any, ...]:
    """A claim without the epoch, which is random."""
    return (claim.case_id, claim.delivery, claim.attempt, claim.crashes, claim.payload)


class QueueMachine(RuleBasedStateMachine):
    """What a worker or producer may do, in any order, with replies lost, workers dead and Redis wiped."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.redis = Redis.from_url(_url)
        self.known: set[str] = set()  # to the queue
        self.claims: list[tuple[str, Claim, Claim]] = []  # worker, in memory and on the server: every one since ever
        self.held: dict[str, list[int]] = {worker: [] for worker in WORKERS}  # what each worker believes to hold
        self.scored_by: dict[str, int] = {}  # case → the claim whose result was accepted; what the store holds
        self.epoch = 0
        self.begin()

    def begin(self) -> None:
        """Redis as it is when it is new, or was wiped."""
        self.epoch += 1
        self.memory = MemoryRun(now=self.clock.now, epoch=f"m{self.epoch}")
        self.queue = RunQueue.of(self.redis, f"model-{next(_runs)}", clock=TEST_CLOCK)
        self.sides = {name: self.worker(name) for name in WORKERS}
        self.known.clear()
        self.do(self.redis.set("test:now_ms", int(self.clock.now() * 1000)))
        self.do(self.queue.enqueueing.open("m"))
        self.do(MemoryEnqueueing(self.memory).open("m"))

    def worker(self, name: str) -> tuple[MemoryClaiming, RedisClaiming]:
        identity = WorkerIdentity(name=name, hostname="h", pid=1, concurrency=4, born="2026-01-01T00:00:00.000000Z")
        return (
            MemoryClaiming(self.memory, worker=name, straggler_times=0.5, straggler_least_s=2.0),
            self.queue.claiming(identity, WorkerSettings(straggler_times=0.5, straggler_least_s=2.0)),
        )

    def do(self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        return self.loop.run_until_complete(awaited())

    def do_lossy(self, work: Any, *, lost: bool) -> Any:
        """`work` makes a call of the server; with `lost` its reply does not arrive, and it is made again."""
        if lost:
            send = self.queue.scripts._send

            async def deaf() -> None:
                waiting = list(self.queue.scripts._waiting)
                for call in waiting:
                    call.reply.set_exception(UnavailableError("the reply was lost"))
                await send()

            self.queue.scripts._send = deaf  # type: ignore[method-assign]
            with pytest.raises(UnavailableError):
                self.do(work())
            self.do(self.queue.scripts._sender)  # type: ignore[arg-type]
            self.queue.scripts._send = send  # type: ignore[method-assign]
        return self.do(work())

    def holds(self, index: int) -> bool:
        return self.memory.holding(self.claims[index][1]) is not None

    # --- the producer ----------------------------------------------------------------------------------------------

    @rule(ids=case_ids)
    def enqueue(self, ids: list[str]) -> None:
        assume(self.memory.state is RunState.OPEN)
        entries = [entry(c) for c in ids]
        new = self.do(self.queue.enqueueing.enqueue(entries))
        assert new == self.do(MemoryEnqueueing(self.memory).enqueue(entries)) == len(set(ids) - self.known)
        self.known |= set(ids)

    @precondition(lambda self: self.known)
    @rule()
    def seal(self) -> None:
        # only cases that the queue knows were counted
        total = len(self.known) if self.memory.state is RunState.OPEN else 0
        assert self.do(self.queue.enqueueing.seal(total)) == self.do(MemoryEnqueueing(self.memory).seal(total))

    @rule()
    def retry_dead(self) -> None:
        assert self.do(self.queue.enqueueing.retry_dead()) == self.do(MemoryEnqueueing(self.memory).retry_dead())

    @rule()
    def wipe_and_resume(self) -> None:
        """Redis forgets everything; the producer brings back what the store does not hold."""
        known, state = sorted(self.known), self.memory.state
        earlier = {c: self.memory.jobs[c].deliveries for c in known}
        self.begin()
        for enqueueing in (self.queue.enqueueing, MemoryEnqueueing(self.memory)):
            scored = [entry(c, earlier[c]) for c in known if c in self.scored_by]
            fresh = [entry(c, earlier[c]) for c in known if c not in self.scored_by]
            self.do(enqueueing.adopt(scored, dead=False))
            self.do(enqueueing.enqueue(fresh))
            if state is not RunState.OPEN:
                self.do(enqueueing.seal(len(known)))
        self.known = set(known)

    # --- workers ---------------------------------------------------------------------------------------------------

    @rule(worker=workers, limit=st.integers(0, 3), lost=st.booleans())
    def claim(self, worker: str, limit: int, lost: bool) -> None:
        memory, server = self.sides[worker]
        mine = [self.claims[index][1] for index in self.held[worker]]
        options: dict[str, Any] = {
            "used_bytes": sum(claim.size_bytes for claim in mine),
            "capacity_bytes": CAPACITY_BYTES,
            "has_suspect": any(claim.crashes >= SUSPECT_AFTER for claim in mine),
        }
        expected = self.do(memory.claim(limit, **options))
        found = self.do_lossy(lambda: server.claim(limit, **options), lost=lost)
        assert [shape(c) for c in found.claims] == [shape(c) for c in expected.claims]
        assert (found.state, found.hold) == (expected.state, expected.hold)
        for pair in zip(expected.claims, found.claims, strict=True):
            self.held[worker].append(len(self.claims))
            self.claims.append((worker, *pair))

    @rule(worker=workers, data=st.data())
    def claim_that_the_network_kept_back(self, worker: str, data: st.DataObject) -> None:
        """It arrives after a later one, and nobody hears its reply: it must lease nothing."""
        server = self.sides[worker][1]
        number = server._number
        assume(number > 2)
        server._number = data.draw(st.integers(1, number - 2))
        late = self.do(server.claim(3, used_bytes=0, capacity_bytes=CAPACITY_BYTES))
        server._number = number
        assert late.claims == ()

    @rule(worker=workers)
    def heartbeat(self, worker: str) -> None:
        memory, server = self.sides[worker]
        held = self.held[worker]
        expected = self.do(memory.heartbeat([self.claims[i][1] for i in held], waiting=0))
        found = self.do(server.heartbeat([self.claims[i][2] for i in held], waiting=0))
        assert [shape(c) for c in found] == [shape(c) for c in expected]
        self.held[worker] = [i for i in held if self.holds(i)]

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), dead=st.booleans(), lost=st.booleans())
    def finish(self, data: st.DataObject, dead: bool, lost: bool) -> None:
        """By whoever has ever had the case: most of them are stale."""
        index = data.draw(st.integers(0, len(self.claims) - 1))
        worker, in_memory, on_server = self.claims[index]
        reason, counters = "reason" if dead else None, {"judge_calls": 1.0}
        held = self.holds(index)
        memory, server = self.sides[worker]
        expected = self.do(memory.finish(in_memory, dead=reason, counters=counters))
        found = self.do_lossy(lambda: server.finish(on_server, dead=reason, counters=counters), lost=lost)
        assert found == expected
        if found and not dead:
            assert self.scored_by.setdefault(in_memory.case_id, index) == index, "two results were accepted"
            assert held or self.scored_by[in_memory.case_id] == index
        self.forget(index)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), delay_s=st.sampled_from([0.0, 5.0]), consume=st.booleans(), lost=st.booleans())
    def release(self, data: st.DataObject, delay_s: float, consume: bool, lost: bool) -> None:
        index = data.draw(st.integers(0, len(self.claims) - 1))
        worker, in_memory, on_server = self.claims[index]
        memory, server = self.sides[worker]
        options: dict[str, Any] = {"delay_s": delay_s, "consume": consume, "counters": {"judge_calls": 1.0}}
        alone = len(self.memory.jobs[in_memory.case_id].leases) < 2 if in_memory.case_id in self.memory.jobs else True
        expected = self.do(memory.release(in_memory, **options))
        found = self.do_lossy(lambda: server.release(on_server, **options), lost=lost)
        # with another execution under way, the second try finds that nothing is held any more
        assert found == (expected and (alone or not lost))
        self.forget(index)

    def forget(self, index: int) -> None:
        worker = self.claims[index][0]
        self.held[worker] = [i for i in self.held[worker] if i != index]

    @rule(worker=workers)
    def die(self, worker: str) -> None:
        """Killed: a process of another name takes its place, and knows of nothing."""
        self.held[worker] = []

    # --- everything else ---------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, 3.0, 5.0, 13.0, 40.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.do(self.redis.set("test:now_ms", int(self.clock.now() * 1000)))

    @rule(beating=st.sets(workers))
    def a_lease_passes(self, beating: set[str]) -> None:
        """Some workers go on, and the leases of the others run out."""
        for _ in range(4):
            self.pass_time(4.0)
            for worker in WORKERS:
                if worker in beating:
                    self.heartbeat(worker)
            self.claim("w1", 0, lost=False)

    @rule(reason=st.sampled_from(["judge: down", None]))
    def hold(self, reason: str | None) -> None:
        self.do(self.queue.steering.hold(reason))
        self.do(MemorySteering(self.memory).hold(reason))

    @invariant()
    def both_agree_and_no_case_is_lost(self) -> None:
        expected = self.do(MemorySteering(self.memory).stats())
        found = self.do(self.queue.steering.stats())
        for name in (
            "state",
            "total",
            "ready",
            "delayed",
            "leased",
            "scored",
            "dead",
            "executions",
            "hold",
            "counters",
        ):
            assert getattr(found, name) == getattr(expected, name), name
        assert found.ready + found.delayed + found.leased + found.scored + found.dead == len(self.known)
        drained = found.state in (RunState.DRAINED, RunState.FINALIZED)
        over = found.total is not None and found.scored + found.dead == found.total
        assert drained == over

    def teardown(self) -> None:
        self.do(self.redis.aclose())
        self.loop.close()


@pytest.fixture(scope="module")
def server(redis_server: Server) -> Server:
    global _url  # noqa: PLW0603 - Hypothesis makes the machines, and tells them nothing
    _url = redis_server.url
    return redis_server


# so many sequences, others each time: QUEUE_MODEL_EXAMPLES=5000 pytest tests/contracts/test_queue_model.py
EXAMPLES = int(os.environ.get("QUEUE_MODEL_EXAMPLES", "0"))


def test_i01_i02_i03_i06_i10_the_queue_follows_its_model(server: Server) -> None:
    run_state_machine_as_test(
        QueueMachine,
        settings=settings(
            max_examples=EXAMPLES or 150,
            stateful_step_count=50,
            deadline=None,
            derandomize=not EXAMPLES,
            phases=[
                Phase.generate
            ],  # shrinking on real servers takes minutes; add Phase.shrink to understand a failure
            suppress_health_check=list(HealthCheck),
        ),
    )
