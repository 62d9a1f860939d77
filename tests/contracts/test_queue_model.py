"""Hypothesis drives the queue in memory and on a real server in step, and a ledger of its own checks both."""

import asyncio
import copy
import itertools
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from redis.asyncio import Redis

from queue_eval.core.attempt import QUARANTINE_AFTER
from queue_eval.core.errors import UnavailableError
from queue_eval.core.run import RunState
from queue_eval.core.settings.workers import WorkerSettings
from queue_eval.ports.queue import Claim, Entry
from queue_eval.queue.claim import RedisClaiming, WorkerIdentity
from queue_eval.wiring.queues import RunQueue
from testkit.fakes.clock import FakeClock
from testkit.fakes.memory_queue import MemoryClaiming, MemoryEnqueueing, MemoryRun, MemorySteering
from testkit.redis_server import Server
from tests.contracts.test_queue import TEST_CLOCK

T = TypeVar("T")

CASES = ["a", "b", "c", "d", "e"]
WORKERS = ["w1", "w2", "w3"]
CAPACITY_BYTES = 1000
_runs = itertools.count()
_url = ""

# what may happen, by how often it does
STEPS = [
    *("claim", "claim", "claim", "claim", "claim", "finish", "finish", "finish", "release", "release"),
    *("heartbeat", "pass_time", "a_lease_passes", "die", "hold", "claim_that_the_network_kept_back"),
    *("enqueue", "seal", "retry_dead", "reopen", "save", "come_back_with_older_data", "wipe_and_resume"),
]
HAPPENED: Counter[str] = Counter()
Draw = Callable[[st.SearchStrategy[Any]], Any]

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


@dataclass(slots=True)
class Reported:
    """What callers know of a case, counted without looking into any queue."""

    deliveries: int = 0
    begun: int = 0  # since it was enqueued or retried: of its deliveries those that were no straggler's second
    released: int = 0  # of these, ended by who had them
    consumed: int = 0  # of these, at the price of an attempt
    scored: bool = False
    dead: bool = False
    ended_by: int | None = None  # a claim

    def claimed(self, *, second: bool) -> None:
        self.deliveries += 1
        self.begun += not second
        self.ended_by = None

    def ended(self, *, consumed: bool) -> None:
        self.released += 1
        self.consumed += consumed


@dataclass(slots=True)
class Ledger:
    cases: dict[str, Reported] = field(default_factory=dict)
    executions: int = 0
    replied: dict[str, int] = field(default_factory=dict)  # worker → the number of its last claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    memory: dict[str, Any]
    dumps: list[tuple[bytes | str, bytes]]
    ledger: Ledger


class QueueMachine(RuleBasedStateMachine):
    """What a worker or producer may do, in any order, with replies lost, workers dead, Redis wiped or back with older data."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.redis = Redis.from_url(_url)
        self.claims: list[tuple[str, Claim, Claim]] = []  # worker, in memory and on the server: every one since ever
        self.held: dict[str, list[int]] = {worker: [] for worker in WORKERS}  # what each worker believes to hold
        self.stored: set[str] = set()  # cases whose result is in the store, which forgets nothing
        self.ledger = Ledger()
        self.epoch = 0
        self.saved: Saved | None = None
        self.begin()

    def begin(self) -> None:
        """Redis as it is when it is new, or was wiped."""
        self.epoch += 1
        self.memory = MemoryRun(now=self.clock.now, epoch=f"m{self.epoch}")
        self.run_id = f"model-{next(_runs)}-end"
        self.queue = RunQueue.of(self.redis, self.run_id, clock=TEST_CLOCK)
        self.sides = {name: self.worker(name) for name in WORKERS}
        self.ledger, self.saved = Ledger(), None
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

    @initialize(sealed=st.booleans())
    def begin_with_all_cases(self, sealed: bool) -> None:
        self.enqueue(lambda _: CASES)
        if sealed:
            self.seal(lambda _: None)

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        """One rule for all: Hypothesis leaves rules out of a sequence, and without claims and ends the others meet nothing."""
        name = data.draw(st.sampled_from(STEPS))
        getattr(self, name)(data.draw)
        HAPPENED[name] += 1

    # --- the producer ----------------------------------------------------------------------------------------------

    def enqueue(self, draw: Draw) -> None:
        if self.memory.state is not RunState.OPEN:
            return
        ids = draw(case_ids)
        entries = [entry(c) for c in ids]
        new = self.do(self.queue.enqueueing.enqueue(entries))
        assert (
            new == self.do(MemoryEnqueueing(self.memory).enqueue(entries)) == len(set(ids) - self.ledger.cases.keys())
        )
        for case_id in ids:
            self.ledger.cases.setdefault(case_id, Reported())

    def seal(self, _: Draw) -> None:
        # only cases that the queue knows were counted
        total = len(self.ledger.cases) if self.memory.state is RunState.OPEN else 0
        assert self.do(self.queue.enqueueing.seal(total)) == self.do(MemoryEnqueueing(self.memory).seal(total))

    def retry_dead(self, _: Draw) -> None:
        dead = [shown for shown in self.ledger.cases.values() if shown.dead]
        expected = self.do(MemoryEnqueueing(self.memory).retry_dead())
        assert self.do(self.queue.enqueueing.retry_dead()) == expected == len(dead)
        for shown in dead:
            shown.dead, shown.begun, shown.released, shown.consumed = False, 0, 0, 0

    def reopen(self, draw: Draw) -> None:
        """Some results in the store lack scores; whatever Redis takes for scored of them waits again."""
        lacking = [entry(c) for c in draw(case_ids)]
        scored = [shown for e in lacking if (shown := self.ledger.cases.get(e.case_id)) and shown.scored]
        expected = self.do(MemoryEnqueueing(self.memory).reopen(lacking))
        assert self.do(self.queue.enqueueing.reopen(lacking)) == expected == len(scored)
        self.stored -= {e.case_id for e in lacking}
        HAPPENED["opened again"] += len(scored)
        for shown in scored:
            shown.scored, shown.begun, shown.released, shown.consumed = False, 0, 0, 0

    def wipe_and_resume(self, _: Draw) -> None:
        """Redis forgets everything; the producer brings back what the store does not hold."""
        earlier, state = {c: self.ledger.cases[c].deliveries for c in sorted(self.ledger.cases)}, self.memory.state
        self.begin()
        for enqueueing in (self.queue.enqueueing, MemoryEnqueueing(self.memory)):
            scored = [entry(c, n) for c, n in earlier.items() if c in self.stored]
            fresh = [entry(c, n) for c, n in earlier.items() if c not in self.stored]
            self.do(enqueueing.adopt(scored, dead=False))
            self.do(enqueueing.enqueue(fresh))
            if state is not RunState.OPEN:
                self.do(enqueueing.seal(len(earlier)))
        self.ledger.cases = {c: Reported(deliveries=n, scored=c in self.stored) for c, n in earlier.items()}

    def save(self, _: Draw) -> None:
        """What a disk or a replica has seen."""
        memory = copy.deepcopy({f.name: getattr(self.memory, f.name) for f in fields(MemoryRun) if f.name != "now"})
        keys = self.do(self.redis.keys(f"*{self.run_id}*"))
        dumps = [(key, dump) for key in keys if (dump := self.do(self.redis.dump(key)))]
        self.saved = Saved(memory=memory, dumps=dumps, ledger=copy.deepcopy(self.ledger))

    def come_back_with_older_data(self, _: Draw) -> None:
        """After a loss of power, or a failover to a replica that was behind. Workers know nothing of it."""
        if self.saved is None:
            return
        HAPPENED["claims forgotten"] += max(0, self.ledger.executions - self.saved.ledger.executions)
        for name, value in copy.deepcopy(self.saved.memory).items():
            setattr(self.memory, name, value)
        if keys := self.do(self.redis.keys(f"*{self.run_id}*")):
            self.do(self.redis.delete(*keys))
        for key, dump in self.saved.dumps:
            self.do(self.redis.restore(key, 0, dump))
        self.ledger = copy.deepcopy(self.saved.ledger)

    # --- workers ---------------------------------------------------------------------------------------------------

    def claim(self, draw: Draw) -> None:
        self.claimed(draw(workers), draw(st.integers(1, 3)), lost=draw(st.booleans()))

    def claimed(self, worker: str, limit: int, *, lost: bool) -> None:
        memory, server = self.sides[worker]
        mine = [self.claims[index][1] for index in self.held[worker]]
        options: dict[str, Any] = {
            "used_bytes": sum(claim.size_bytes for claim in mine),
            "capacity_bytes": CAPACITY_BYTES,
            "has_quarantined": any(claim.crashes >= QUARANTINE_AFTER for claim in mine),
        }
        expected = self.do(memory.claim(limit, **options))
        found = self.do_lossy(lambda: server.claim(limit, **options), lost=lost)
        assert [shape(c) for c in found.claims] == [shape(c) for c in expected.claims]
        assert (found.state, found.hold) == (expected.state, expected.hold)
        self.ledger.replied[worker] = server._number - 1
        for in_memory, on_server in zip(expected.claims, found.claims, strict=True):
            shown = self.ledger.cases[on_server.case_id]
            shown.claimed(second=self.memory.jobs[on_server.case_id].hedged)
            self.ledger.executions += 1
            assert on_server.delivery == shown.deliveries
            assert (on_server.attempt, on_server.crashes) == (shown.consumed + 1, shown.begun - shown.released - 1)
            named = {(claim.case_id, claim.execution) for _, _, claim in self.claims}
            assert (on_server.case_id, on_server.execution) not in named, "two executions have one name"
            HAPPENED["second executions"] += self.memory.jobs[on_server.case_id].hedged
            self.held[worker].append(len(self.claims))
            self.claims.append((worker, in_memory, on_server))

    def claim_that_the_network_kept_back(self, draw: Draw) -> None:
        """It arrives after a later one, and its reply is lost: it must lease nothing."""
        worker = draw(workers)
        if (replied := self.ledger.replied.get(worker, 0)) < 2:
            return
        server = self.sides[worker][1]
        number = server._number
        server._number = draw(st.integers(1, replied - 1))
        late = self.do(server.claim(3, used_bytes=0, capacity_bytes=CAPACITY_BYTES))
        server._number = number
        assert late.claims == ()

    def heartbeat(self, draw: Draw) -> None:
        self.beaten(draw(workers))

    def beaten(self, worker: str) -> None:
        memory, server = self.sides[worker]
        held = self.held[worker]
        expected = self.do(memory.heartbeat([self.claims[i][1] for i in held], waiting=0))
        found = self.do(server.heartbeat([self.claims[i][2] for i in held], waiting=0))
        assert [shape(c) for c in found] == [shape(c) for c in expected]
        self.held[worker] = [i for i in held if self.holds(i)]

    def one_of_the_claims(self, draw: Draw) -> int | None:
        """One of the latest, or of all: those are stale, mostly."""
        count = len(self.claims)
        return draw(st.integers(max(0, count - 4), count - 1) | st.integers(0, count - 1)) if count else None

    def finish(self, draw: Draw) -> None:
        if (index := self.one_of_the_claims(draw)) is None:
            return
        dead, lost = draw(st.booleans()), draw(st.booleans())
        worker, in_memory, on_server = self.claims[index]
        reason, counters = "reason" if dead else None, {"judge_calls": 1.0}
        memory, server = self.sides[worker]
        expected = self.do(memory.finish(in_memory, dead=reason, counters=counters))
        found = self.do_lossy(lambda: server.finish(on_server, dead=reason, counters=counters), lost=lost)
        assert found == expected
        HAPPENED["stale ends"] += not found
        if found:
            shown = self.ledger.cases[in_memory.case_id]
            assert shown.ended_by in (None, index), "two ends were accepted"
            shown.scored, shown.dead, shown.ended_by = not dead, dead, index
        if found and not dead:
            self.stored.add(in_memory.case_id)
        self.forget(index)

    def release(self, draw: Draw) -> None:
        if (index := self.one_of_the_claims(draw)) is None:
            return
        delay_s, consume, lost = draw(st.sampled_from([0.0, 5.0])), draw(st.booleans()), draw(st.booleans())
        worker, in_memory, on_server = self.claims[index]
        memory, server = self.sides[worker]
        options: dict[str, Any] = {"delay_s": delay_s, "consume": consume, "counters": {"judge_calls": 1.0}}
        alone = len(self.memory.jobs[in_memory.case_id].leases) < 2 if in_memory.case_id in self.memory.jobs else True
        ends = self.holds(index) and alone
        expected = self.do(memory.release(in_memory, **options))
        found = self.do_lossy(lambda: server.release(on_server, **options), lost=lost)
        # with another execution under way, the second try finds that nothing is held any more
        assert found == (expected and (alone or not lost))
        if ends:
            assert found
            self.ledger.cases[in_memory.case_id].ended(consumed=consume)
        self.forget(index)

    def forget(self, index: int) -> None:
        worker = self.claims[index][0]
        self.held[worker] = [i for i in self.held[worker] if i != index]

    def die(self, draw: Draw) -> None:
        """Killed: a process of another name takes its place, and knows of nothing."""
        self.held[draw(workers)] = []

    # --- everything else ---------------------------------------------------------------------------------------------

    def pass_time(self, draw: Draw) -> None:
        self.passed(draw(st.sampled_from([1.0, 3.0, 5.0, 13.0, 40.0])))

    def passed(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.do(self.redis.set("test:now_ms", int(self.clock.now() * 1000)))

    def a_lease_passes(self, draw: Draw) -> None:
        """Some workers go on, and the leases of the others run out."""
        beating = draw(st.sets(workers))
        for _ in range(4):
            self.passed(4.0)
            for worker in WORKERS:
                if worker in beating:
                    self.beaten(worker)
            self.claimed("w1", 0, lost=False)

    def hold(self, draw: Draw) -> None:
        reason = draw(st.sampled_from(["judge: down", None, None]))
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
        assert found.ready + found.delayed + found.leased + found.scored + found.dead == len(self.ledger.cases)
        assert found.scored == sum(shown.scored for shown in self.ledger.cases.values())
        assert found.dead == sum(shown.dead for shown in self.ledger.cases.values())
        assert found.executions == self.ledger.executions
        drained = found.state in (RunState.DRAINED, RunState.FINALIZED)
        over = found.total is not None and found.scored + found.dead == found.total
        assert drained == over

    def teardown(self) -> None:
        self.do(self.redis.aclose())
        self.loop.close()


@pytest.fixture(scope="module")
def server(redis_server: Server) -> Server:
    global _url  # noqa: PLW0603 - Hypothesis makes the machines, and hands them nothing
    _url = redis_server.url
    return redis_server


# so many sequences, others each time: QUEUE_MODEL_EXAMPLES=5000 pytest tests/contracts/test_queue_model.py
EXAMPLES = int(os.environ.get("QUEUE_MODEL_EXAMPLES", "0"))


LEAST = 5  # of everything


@pytest.mark.long
def test_i01_i02_i03_i06_i10_the_queue_follows_its_model(server: Server) -> None:
    HAPPENED.clear()
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
    # sequences in which nothing happens would agree as well
    rare = {name: HAPPENED[name] for name in (*STEPS, "claims forgotten", "second executions", "stale ends")}
    assert min(rare.values()) >= LEAST, rare
