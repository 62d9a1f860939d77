"""A queue in memory: the model that the contract suite compares Redis with."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from queue_eval.core.errors import NoInputError
from queue_eval.core.run import RunState, RunStats, WorkerSeen
from queue_eval.ports import Claim, Claims, Entry, Now


@dataclass(slots=True)
class _Job:
    entry: Entry
    state: str = "ready"  # ready, leased, scored or dead
    execution: str = ""
    deliveries: int = 0
    attempts: int = 0
    lease_until: float = 0.0
    due_at: float = 0.0


@dataclass(slots=True)
class MemoryRun:
    """What Redis would hold. Share it between the three sides."""

    now: Now
    epoch: str = "e"
    manifest: str | None = None
    state: RunState = RunState.OPEN
    total: int | None = None
    hold: str | None = None
    concurrency: int | None = None
    executions: int = 0
    jobs: dict[str, _Job] = field(default_factory=dict)
    ready: deque[str] = field(default_factory=deque)
    delayed: dict[str, float] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)
    workers: dict[str, WorkerSeen] = field(default_factory=dict)
    roles: dict[str, float] = field(default_factory=dict)

    def count(self, state: str) -> int:
        return sum(job.state == state for job in self.jobs.values())

    def add(self, counters: dict[str, float]) -> None:
        for name, value in counters.items():
            self.counters[name] = self.counters.get(name, 0.0) + value

    def drain_if_done(self) -> None:
        if self.state is RunState.SEALED and self.count("scored") + self.count("dead") >= (self.total or 0):
            self.state = RunState.DRAINED

    def holding(self, claim: Claim) -> _Job | None:
        job = self.jobs.get(claim.case_id)
        return job if job and job.state == "leased" and job.execution == claim.execution else None


class MemoryEnqueueing:
    def __init__(self, run: MemoryRun) -> None:
        self._run = run

    async def open(self, manifest_identity: str) -> tuple[str, RunState]:
        if self._run.manifest is None:
            self._run.manifest = manifest_identity
        return self._run.manifest, self._run.state

    async def enqueue(self, entries: Sequence[Entry]) -> int:
        return self._add(entries, "ready")

    async def adopt(self, entries: Sequence[Entry], *, dead: bool) -> int:
        return self._add(entries, "dead" if dead else "scored")

    def _add(self, entries: Sequence[Entry], state: str) -> int:
        fresh = [entry for entry in entries if entry.case_id not in self._run.jobs]
        for entry in fresh:
            self._run.jobs[entry.case_id] = _Job(entry, state=state, deliveries=entry.earlier)
            if state == "ready":
                self._run.ready.append(entry.case_id)
        return len(fresh)

    async def seal(self, total: int) -> RunState:
        if self._run.state is RunState.OPEN:
            self._run.state, self._run.total = RunState.SEALED, total
            self._run.drain_if_done()
        return self._run.state

    async def retry_dead(self) -> int:
        dead = [case_id for case_id, job in self._run.jobs.items() if job.state == "dead"]
        for case_id in dead:
            self._run.jobs[case_id].state, self._run.jobs[case_id].attempts = "ready", 0
            self._run.ready.append(case_id)
        if dead and self._run.state in (RunState.DRAINED, RunState.FINALIZED):
            self._run.state = RunState.SEALED
        return len(dead)


class MemoryClaiming:
    def __init__(self, run: MemoryRun, *, worker: str = "w", lease_s: float = 12.0) -> None:
        self._run = run
        self._worker = worker
        self._lease_s = lease_s

    async def claim(self, limit: int, *, used_bytes: int, capacity_bytes: int) -> Claims:
        run = self._run
        if run.manifest is None:
            raise NoInputError("run unknown")
        self._sweep()
        claims: list[Claim] = []
        stopped = run.hold or run.state in (RunState.ABORTED, RunState.FINALIZED)
        while run.ready and len(claims) < limit and not stopped:
            job = run.jobs[run.ready[0]]
            size = min(job.entry.size_bytes, capacity_bytes)
            if used_bytes + size > capacity_bytes:
                break
            used_bytes += size
            claims.append(self._taken(run.ready.popleft()))
        return Claims(state=run.state, hold=run.hold, concurrency=run.concurrency, claims=tuple(claims))

    def _sweep(self) -> None:
        run, now = self._run, self._run.now()
        for case_id, job in run.jobs.items():
            if job.state == "leased" and job.lease_until <= now:
                job.state = "ready"
                run.ready.appendleft(case_id)
        for case_id in [c for c, due_at in run.delayed.items() if due_at <= now]:
            del run.delayed[case_id]
            run.ready.appendleft(case_id)

    def _taken(self, case_id: str) -> Claim:
        run, job = self._run, self._run.jobs[case_id]
        job.deliveries, job.attempts = job.deliveries + 1, job.attempts + 1
        job.state, job.execution, job.lease_until = (
            "leased",
            f"{run.epoch}-{job.deliveries}",
            run.now() + self._lease_s,
        )
        run.executions += 1
        return Claim(
            case_id=case_id,
            execution=job.execution,
            delivery=job.deliveries,
            attempt=job.attempts,
            payload=job.entry.payload,
            size_bytes=job.entry.size_bytes,
        )

    async def heartbeat(self, claims: Sequence[Claim], *, waiting: int) -> list[Claim]:
        run = self._run
        seen = WorkerSeen(name=self._worker, concurrency=1, in_flight=len(claims), waiting=waiting, seen_s_ago=0.0)
        run.workers[self._worker] = seen
        lost = []
        for claim in claims:
            if job := run.holding(claim):
                job.lease_until = run.now() + self._lease_s
            else:
                lost.append(claim)
        return lost

    async def finish(self, claim: Claim, *, dead: str | None, counters: dict[str, float]) -> bool:
        kind = "scored" if dead is None else "dead"
        job = self._run.holding(claim)
        if job is None:
            known = self._run.jobs.get(claim.case_id)
            return bool(known and known.execution == claim.execution and known.state == kind)
        job.state = kind
        self._run.add(counters)
        self._run.drain_if_done()
        return True

    async def release(self, claim: Claim, *, delay_s: float, consume: bool, counters: dict[str, float]) -> bool:
        run, job = self._run, self._run.holding(claim)
        if job is None:
            known = run.jobs.get(claim.case_id)
            return bool(known and known.execution == claim.execution and known.state == "ready")
        job.state = "ready"
        job.attempts -= not consume
        if delay_s > 0:
            run.delayed[claim.case_id] = run.now() + delay_s
        else:
            run.ready.appendleft(claim.case_id)
        run.add(counters)
        return True

    async def leave(self) -> None:
        self._run.workers.pop(self._worker, None)


class MemorySteering:
    def __init__(self, run: MemoryRun) -> None:
        self._run = run

    async def stats(self) -> RunStats:
        run = self._run
        if run.manifest is None:
            raise NoInputError("run unknown")
        return RunStats(
            state=run.state,
            total=run.total,
            ready=len(run.ready),
            delayed=len(run.delayed),
            leased=run.count("leased"),
            scored=run.count("scored"),
            dead=run.count("dead"),
            executions=run.executions,
            hold=run.hold,
            counters=dict(run.counters),
            workers=tuple(run.workers.values()),
            now_s=run.now(),
        )

    async def hold(self, reason: str | None) -> None:
        self._run.hold = reason

    async def resize(self, concurrency: int) -> None:
        if self._run.manifest is None:
            raise NoInputError("run unknown")
        self._run.concurrency = concurrency

    async def elect(self, role: str, ttl_s: float) -> bool:
        if self._run.roles.get(role, 0.0) > self._run.now():
            return False
        self._run.roles[role] = self._run.now() + ttl_s
        return True

    async def finalized(self) -> None:
        if self._run.state is RunState.DRAINED:
            self._run.state = RunState.FINALIZED
