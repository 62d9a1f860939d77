"""One run in virtual time: the real worker, executions and heartbeat on the queue's model, which passes the contract suite that Redis passes."""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from loadtest.skew.virtual import run_virtually
from queue_eval.core.attempt import Backoff
from queue_eval.core.case import Case, CaseIdentity
from queue_eval.core.meter import CaseMeter
from queue_eval.core.record import MetricResult
from queue_eval.core.weight import heaviest_first
from queue_eval.ports.clock import Clock
from queue_eval.ports.queue import Claim, Claims, Entry
from queue_eval.retry_while_unavailable import RetryWhileUnavailable
from queue_eval.worker.case_executor import Attempts, CaseExecutor
from queue_eval.worker.prober import Prober
from queue_eval.worker.records import Records
from queue_eval.worker.watchdog import Watchdog
from queue_eval.worker.worker import Capacity, Liveness, Worker
from testkit.fakes.memory_queue import MemoryClaiming, MemoryEnqueueing, MemoryRun, MemorySteering
from testkit.fakes.memory_store import MemoryStore

LEASE_S = 12.0  # the default of eval.yaml
BYTES_PER_WEIGHT_S = 1000  # a case's text is as long as it seems heavy: what stragglers are known by


@dataclass(frozen=True, kw_only=True)
class Plan:
    spent_s: Sequence[float]  # of each case, in truth
    weights: Sequence[float]  # as the producer guesses them, on any scale
    workers: int
    each: int = 1  # cases in flight in one of them
    added: Sequence[float] = field(default=())  # when further workers start
    lost_at_s: float | None = None  # when the last of them is killed, for good


class _Sleeping:
    """A scorer that takes a case's time and gives it a point."""

    judge_suspected_down = False
    waiting = 0
    calls_ended = 0

    def __init__(self, spent_s: Sequence[float], if_alive: Callable[[], Awaitable[None]]) -> None:
        self._spent_s = spent_s
        self._if_alive = if_alive

    async def score(self, case: Case, *, skip: frozenset[str], meter: CaseMeter) -> tuple[MetricResult, ...]:
        await asyncio.sleep(self._spent_s[int(case.fields["input"])])
        await self._if_alive()
        return (MetricResult(name="m", threshold=0.5, score=1.0, passed=True),)

    async def probe(self, meter: CaseMeter) -> None:
        """The judge always serves."""

    async def close(self) -> None:
        """Nothing is held."""


class _Mortal(MemoryClaiming):
    """Once it is killed, nothing that this worker sends arrives anywhere."""

    killed = False

    def __init__(self, run: MemoryRun, name: str) -> None:
        super().__init__(run, worker=name, lease_s=LEASE_S)
        self.name = name

    async def claim(self, limit: int, *, used_bytes: int, capacity_bytes: int, has_quarantined: bool = False) -> Claims:
        await self.if_alive()
        return await super().claim(
            limit, used_bytes=used_bytes, capacity_bytes=capacity_bytes, has_quarantined=has_quarantined
        )

    async def heartbeat(
        self, claims: Sequence[Claim], *, waiting: int, waited_s: Mapping[str, float] | None = None
    ) -> list[Claim]:
        await self.if_alive()
        return await super().heartbeat(claims, waiting=waiting, waited_s=waited_s)

    async def finish(self, claim: Claim, *, dead: str | None, counters: dict[str, float]) -> bool:
        await self.if_alive()
        return await super().finish(claim, dead=dead, counters=counters)

    async def release(self, claim: Claim, *, delay_s: float, consume: bool, counters: dict[str, float]) -> bool:
        await self.if_alive()
        return await super().release(claim, delay_s=delay_s, consume=consume, counters=counters)

    async def if_alive(self) -> None:
        if self.killed:
            await asyncio.Event().wait()


def makespan_s(plan: Plan) -> float:
    """Until the last result is accepted."""
    return run_virtually(_run(plan))


async def _run(plan: Plan) -> float:
    loop = asyncio.get_running_loop()
    run, store = MemoryRun(now=loop.time, manifest="m"), MemoryStore()
    await _enqueue(plan, run)
    starts = [0.0] * plan.workers + list(plan.added)
    queues = [_Mortal(run, f"w{n}") for n in range(len(starts))]
    pairs = zip(queues, starts, strict=True)
    workers = [asyncio.create_task(_work(plan, run, store, queue, start_s)) for queue, start_s in pairs]
    if plan.lost_at_s is not None:
        await asyncio.sleep(plan.lost_at_s)
        queues[plan.workers - 1].killed = True
    while not run.state.over:
        await asyncio.sleep(0.05)
    ended_s = loop.time()
    for worker in workers:
        worker.cancel()
    await asyncio.wait(workers)
    return ended_s


async def _enqueue(plan: Plan, run: MemoryRun) -> None:
    producer = MemoryEnqueueing(run)
    scale = BYTES_PER_WEIGHT_S * sum(plan.spent_s) / sum(plan.weights)
    entries, identity = [], CaseIdentity()
    for position in heaviest_first([(weight, n) for n, weight in enumerate(plan.weights)]):
        fields = {"input": f"{position}"}
        case = Case(case_id=identity.of("single", fields), kind="single", fields=fields, place="simulated")
        size = int(plan.weights[position] * scale)
        entries.append(Entry(case_id=case.case_id, payload=case.to_json(), size_bytes=size, description=""))
    await producer.enqueue(entries)
    await producer.seal(len(entries))


async def _work(plan: Plan, run: MemoryRun, store: MemoryStore, queue: _Mortal, start_s: float) -> None:
    await asyncio.sleep(start_s)
    now, chance = asyncio.get_running_loop().time, random.Random(queue.name).random
    steering, scorer = MemorySteering(run), _Sleeping(plan.spent_s, queue.if_alive)
    retrying = RetryWhileUnavailable(sleep=asyncio.sleep, chance=chance, now=now)
    executor = CaseExecutor(
        queue=queue, steering=steering, records=Records(store, run_id="r", worker=queue.name, now=now), scorer=scorer, retrying=retrying,
        attempts=Attempts(most=3, backoff=Backoff(base_s=2.0, max_s=60.0)), now=now, chance=chance,
    )  # fmt: skip
    prober = Prober(run_id="r", worker=queue.name, steering=steering, store=store, scorer=scorer, interval_s=5.0, now=now)  # fmt: skip
    worker = Worker(
        queue=queue, executor=executor, scorer=scorer, prober=prober, retrying=retrying,
        capacity=Capacity(cases=plan.each, size_bytes=1 << 40, grace_s=0.0), liveness=Liveness(lease_s=LEASE_S, watchdog=Watchdog(patience_s=math.inf)),
        clock=Clock(now=now, sleep=asyncio.sleep, chance=chance),
    )  # fmt: skip
    await worker.run()
