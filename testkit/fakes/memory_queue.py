"""A queue in memory: the model that the contract suite compares Redis with."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from queue_eval.core.attempt import QUARANTINE_AFTER
from queue_eval.core.errors import NoInputError
from queue_eval.core.run import RunState, RunStats, WorkerSeen
from queue_eval.ports.clock import Now
from queue_eval.ports.queue import Claim, Claims, Entry

OVERHEAD_BYTES = 1600
NO_STRAGGLER_S = 1.0


@dataclass(slots=True)
class _Job:
    entry: Entry
    state: str = "ready"  # ready, leased, scored or dead
    leases: dict[str, float] = field(
        default_factory=dict
    )  # execution → when its lease ends: one, or two of a straggler
    last: str = ""  # the execution that ended last
    worker: str = ""
    hedged: bool = False  # this delivery was dispatched a second time
    leased_at: float = 0.0
    waited_s: float = 0.0  # for the limiter, since then
    deliveries: int = 0
    attempts: int = 0
    crashes: int = 0


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
    quarantined: deque[str] = field(default_factory=deque)
    delayed: dict[str, float] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)
    workers: dict[str, WorkerSeen] = field(default_factory=dict)
    roles: dict[str, float] = field(default_factory=dict)
    contact_at: float | None = None
    reap_from: float = 0.0
    done_s: float = 0.0
    done_bytes: int = 0
    no_straggler_at: float = float("-inf")  # a worker has looked for one

    counts: Counter[str] = field(default_factory=Counter)  # of jobs, by state
    held: dict[str, _Job] = field(default_factory=dict)  # those with a lease

    def move(self, job: _Job, state: str) -> None:
        self.counts[job.state] -= 1
        self.counts[state] += 1
        job.state = state

    def drop(self, job: _Job, execution: str) -> bool:
        """One lease less; whether it was the last."""
        del job.leases[execution]
        if not job.leases:
            del self.held[job.entry.case_id]
        return not job.leases

    def add(self, counters: dict[str, float]) -> None:
        for name, value in counters.items():
            self.counters[name] = self.counters.get(name, 0.0) + value

    def drain_if_done(self) -> None:
        if self.state is RunState.SEALED and self.counts["scored"] + self.counts["dead"] >= (self.total or 0):
            self.state = RunState.DRAINED

    def reopen(self) -> None:
        if self.state in (RunState.DRAINED, RunState.FINALIZED):
            self.state = RunState.SEALED

    def holding(self, claim: Claim) -> _Job | None:
        job = self.jobs.get(claim.case_id)
        return job if job and claim.execution in job.leases else None

    def make_ready(self, case_id: str) -> None:
        job = self.jobs[case_id]
        self.move(job, "ready")
        if job.crashes >= QUARANTINE_AFTER:
            self.quarantined.append(case_id)
        else:
            self.ready.appendleft(case_id)

    def in_contact(self, lease_s: float) -> None:
        """After a silence of all workers no lease is taken for a while."""
        now = self.now()
        if self.contact_at is not None and now - self.contact_at > lease_s / 2:
            self.reap_from = now + lease_s / 2
        self.contact_at = now


class MemoryEnqueueing:
    def __init__(self, run: MemoryRun) -> None:
        self._run = run

    async def open(self, manifest_identity: str) -> tuple[str, RunState]:
        if self._run.manifest is None:
            self._run.manifest = manifest_identity
        return self._run.manifest, self._run.state

    async def enqueue(self, entries: Sequence[Entry]) -> int:
        new = self._add(entries, "ready")
        if new:
            self._run.reopen()
        return new

    async def adopt(self, entries: Sequence[Entry], *, dead: bool) -> int:
        new = self._add(entries, "dead" if dead else "scored")
        self._run.drain_if_done()
        return new

    def _add(self, entries: Sequence[Entry], state: str) -> int:
        fresh = [entry for entry in entries if entry.case_id not in self._run.jobs]
        for entry in fresh:
            self._run.jobs[entry.case_id] = _Job(entry, state=state, deliveries=entry.earlier)
            self._run.counts[state] += 1
            if state == "ready":
                self._run.ready.append(entry.case_id)
        return len(fresh)

    async def seal(self, total: int) -> RunState:
        if self._run.state is RunState.OPEN:
            self._run.state, self._run.total = RunState.SEALED, total
            self._run.drain_if_done()
        return self._run.state

    async def reopen(self, entries: Sequence[Entry]) -> int:
        known = {entry.case_id: entry for entry in entries if entry.case_id in self._run.jobs}
        scored = [case_id for case_id in known if self._run.jobs[case_id].state == "scored"]
        for case_id in scored:
            job = self._run.jobs[case_id]
            job.entry, job.deliveries = known[case_id], max(job.deliveries, known[case_id].earlier)
        return self._begin_anew(scored)

    async def retry_dead(self) -> int:
        return self._begin_anew([case_id for case_id, job in self._run.jobs.items() if job.state == "dead"])

    def _begin_anew(self, case_ids: Sequence[str]) -> int:
        for case_id in case_ids:
            job = self._run.jobs[case_id]
            job.attempts, job.crashes = 0, 0
            self._run.move(job, "ready")
            self._run.ready.append(case_id)
        if case_ids:
            self._run.reopen()
        return len(case_ids)


class MemoryClaiming:
    def __init__(
        self,
        run: MemoryRun,
        *,
        worker: str = "w",
        lease_s: float = 12.0,
        straggler_times: float = 3.0,
        straggler_least_s: float = 30.0,
    ) -> None:
        self._run = run
        self._worker = worker
        self._number = 0  # of its claims
        self._lease_s = lease_s
        self._straggler_times = straggler_times
        self._straggler_least_s = straggler_least_s

    async def claim(self, limit: int, *, used_bytes: int, capacity_bytes: int, has_quarantined: bool = False) -> Claims:
        run = self._run
        if run.manifest is None:
            raise NoInputError("run unknown")
        self._number += 1
        run.in_contact(self._lease_s)
        self._sweep()
        claims: list[Claim] = []
        if not (run.hold or run.state in (RunState.ABORTED, RunState.FINALIZED)):
            room = [limit, capacity_bytes - used_bytes]
            if not has_quarantined:
                claims += self._taken_from(run.quarantined, room, capacity_bytes, most=1)
            claims += self._taken_from(run.ready, room, capacity_bytes, most=limit)
            if not claims and limit and (straggler := self._hedge(room[1], capacity_bytes)):
                run.jobs[straggler].hedged = True
                claims.append(self._begun(straggler))
        return Claims(state=run.state, hold=run.hold, concurrency=run.concurrency, claims=tuple(claims))

    async def repeat_claim(self) -> Claims:
        return await self.claim(0, used_bytes=0, capacity_bytes=0, has_quarantined=True)

    def _sweep(self) -> None:
        run, now = self._run, self._run.now()
        ended = [
            (lease_until, case_id, execution)
            for case_id, job in run.held.items()
            for execution, lease_until in job.leases.items()
            if lease_until <= now >= run.reap_from
        ]
        for _, case_id, execution in sorted(ended):
            job = run.jobs[case_id]
            if run.drop(job, execution):
                job.attempts, job.crashes = job.attempts - 1, job.crashes + 1
                run.make_ready(case_id)
        for _, case_id in sorted((due_at, c) for c, due_at in run.delayed.items() if due_at <= now):
            del run.delayed[case_id]
            run.make_ready(case_id)

    def _taken_from(self, cases: deque[str], room: list[int], capacity_bytes: int, *, most: int) -> list[Claim]:
        claims: list[Claim] = []
        while cases and room[0] > 0 and len(claims) < most:
            job = self._run.jobs[cases[0]]
            size = min(job.entry.size_bytes, capacity_bytes)
            if size > room[1]:
                break
            room[0], room[1] = room[0] - 1, room[1] - size
            job.attempts += 1
            job.leased_at, job.hedged, job.waited_s = self._run.now(), False, 0.0
            claims.append(self._begun(cases.popleft()))
        return claims

    def _hedge(self, room_bytes: int, capacity_bytes: int) -> str | None:
        run, now = self._run, self._run.now()
        if run.ready or run.quarantined or run.delayed or run.state is not RunState.SEALED or not run.done_bytes:
            return None
        if not self._straggler_times or 0 <= now - run.no_straggler_at < NO_STRAGGLER_S:
            return None
        beyond: dict[str, float] = {}
        for _, case_id in sorted((min(job.leases.values()), case_id) for case_id, job in run.held.items()):
            job = run.held[case_id]
            expected_s = (job.entry.size_bytes + OVERHEAD_BYTES) * run.done_s / run.done_bytes
            allowed_s = max(self._straggler_least_s, self._straggler_times * expected_s)
            running_s = now - job.leased_at - job.waited_s
            if not job.hedged and job.crashes < QUARANTINE_AFTER and running_s > allowed_s:
                beyond[case_id] = running_s / allowed_s
        if not beyond:
            run.no_straggler_at = now
        for case_id in sorted(beyond, key=lambda case_id: beyond[case_id], reverse=True):
            job = run.held[case_id]
            if job.worker != self._worker and min(job.entry.size_bytes, capacity_bytes) <= room_bytes:
                return case_id
        return None

    def _begun(self, case_id: str) -> Claim:
        run, job = self._run, self._run.jobs[case_id]
        job.deliveries += 1
        execution = f"{run.epoch}-{job.deliveries}-{self._worker}{self._number}"
        run.move(job, "leased")
        job.worker, job.last = self._worker, ""
        run.held[case_id] = job
        job.leases[execution] = run.now() + self._lease_s
        run.executions += 1
        return Claim(
            case_id=case_id,
            execution=execution,
            delivery=job.deliveries,
            attempt=job.attempts,
            crashes=job.crashes,
            payload=job.entry.payload,
            size_bytes=job.entry.size_bytes,
        )

    async def heartbeat(
        self, claims: Sequence[Claim], *, waiting: int, waited_s: Mapping[str, float] | None = None
    ) -> list[Claim]:
        run = self._run
        run.in_contact(self._lease_s)
        seen = WorkerSeen(name=self._worker, concurrency=1, in_flight=len(claims), waiting=waiting, seen_s_ago=0.0)
        run.workers[self._worker] = seen
        lost = []
        for claim in claims:
            if job := run.holding(claim):
                job.leases[claim.execution] = run.now() + self._lease_s
                if claim.execution == next(iter(job.leases)):
                    job.waited_s = (waited_s or {}).get(claim.case_id, 0.0) or job.waited_s
            elif not ((job := run.jobs.get(claim.case_id)) and job.last == claim.execution and job.state != "leased"):
                lost.append(claim)
        return lost

    async def finish(self, claim: Claim, *, dead: str | None, counters: dict[str, float]) -> bool:
        kind = "scored" if dead is None else "dead"
        run, job = self._run, self._run.holding(claim)
        if job is None:
            known = run.jobs.get(claim.case_id)
            return bool(known and known.last == claim.execution and known.state == kind)
        run.add(counters)
        if dead is not None and len(job.leases) > 1:
            run.drop(job, claim.execution)
            return False
        for execution in list(job.leases):
            run.drop(job, execution)
        run.move(job, kind)
        job.last = claim.execution
        if dead is None:
            run.done_s += max(0.0, run.now() - job.leased_at - job.waited_s)
            run.done_bytes += job.entry.size_bytes + OVERHEAD_BYTES
        run.drain_if_done()
        return True

    async def release(self, claim: Claim, *, delay_s: float, consume: bool, counters: dict[str, float]) -> bool:
        run, job = self._run, self._run.holding(claim)
        if job is None:
            known = run.jobs.get(claim.case_id)
            return bool(known and known.last == claim.execution and known.state == "ready")
        run.add(counters)
        if not run.drop(job, claim.execution):
            return True
        job.last = claim.execution
        job.attempts -= not consume
        if delay_s > 0:
            run.move(job, "ready")
            run.delayed[claim.case_id] = run.now() + delay_s
        else:
            run.make_ready(claim.case_id)
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
            ready=len(run.ready) + len(run.quarantined),
            delayed=len(run.delayed),
            leased=run.counts["leased"],
            scored=run.counts["scored"],
            dead=run.counts["dead"],
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

    async def end(self, state: RunState) -> RunState:
        run = self._run
        if run.manifest is None:
            raise NoInputError("run unknown")
        if (state is RunState.FINALIZED and run.state is RunState.DRAINED) or (
            state is RunState.ABORTED and not run.state.over
        ):
            run.state = state
        return run.state
