"""The scripts of this folder as Python calls: arguments in the order of ARGV, and what comes back.

Each script may be sent again when its reply was lost. docs/reference/keys.md has the keys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from queue_eval.queue.scripts import Argument, RunScripts

Kind = Literal["scored", "dead"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFields:
    """A case on its way into the queue."""

    case_id: str
    data: bytes  # of RQ's job
    size_bytes: int
    description: str
    earlier: int  # executions that the store has records of


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimFields:
    limit: int
    used_bytes: int
    capacity_bytes: int
    lease_ms: int
    worker: str
    number: int  # of the worker's claims; the same number again brings the same cases
    has_quarantined: bool
    hedge_times: float  # the expected duration; 0: never
    hedge_least_ms: int


class QueueScripts(RunScripts):
    async def open(self, identity: str, epoch: str) -> tuple[bytes, bytes]:
        """Return the identity and the state that stand there now."""
        stands: tuple[bytes, bytes] = await self.call("open", identity, epoch)
        return stands

    async def enqueue(self, rq_queue: str, cases: Sequence[CaseFields]) -> int:
        """Return how many were new, or were put back."""
        return int(await self.call("enqueue", rq_queue, *_flat(cases)))

    async def adopt(self, rq_queue: str, kind: Kind, cases: Sequence[CaseFields]) -> int:
        """Return how many were new."""
        return int(await self.call("adopt", rq_queue, kind, *_flat(cases)))

    async def seal(self, total: int) -> bytes:
        """Return the state."""
        state: bytes = await self.call("seal", total)
        return state

    async def reopen(self, cases: Sequence[CaseFields]) -> int:
        """Return how many were scored and are ready again."""
        return int(await self.call("reopen", *_flat(cases)))

    async def retry(self) -> tuple[int, int]:
        """Return how many dead cases were looked at, and how many of them became ready again.

        Call it until it looked at none.
        """
        looked_at, revived = await self.call("retry")
        return int(looked_at), int(revived)

    async def claim(self, fields: ClaimFields) -> list[Any]:
        """Return state, hold and concurrency, then FIELDS_PER_CLAIM parts for each case."""
        reply: list[Any] = await self.call(
            "claim",
            fields.limit,
            fields.used_bytes,
            fields.capacity_bytes,
            fields.lease_ms,
            fields.worker,
            fields.number,
            int(fields.has_quarantined),
            fields.hedge_times,
            fields.hedge_least_ms,
        )
        return reply

    async def heartbeat(self, lease_ms: int, worker: str, held: Sequence[tuple[str, str, int]]) -> list[bytes]:
        """`held`: case, execution and ms of waiting for the limiter.

        Return execution and case of each lost lease, in turns.
        """
        lost: list[bytes] = await self.call("heartbeat", lease_ms, worker, *(part for row in held for part in row))
        return lost

    async def finish(
        self, case_id: str, execution: str, *, kind: Kind, reason: str, data: bytes, counters: Mapping[str, float]
    ) -> bool:
        """`data` replaces the payload. Return whether this execution's outcome is the accepted one."""
        return bool(await self.call("finish", case_id, execution, kind, reason, data, *_pairs(counters)))

    async def release(
        self, case_id: str, execution: str, delay_ms: int, counters: Mapping[str, float], *, consume: bool
    ) -> bool:
        """Return whether this execution held the case."""
        return bool(await self.call("release", case_id, execution, delay_ms, int(consume), *_pairs(counters)))

    async def note(self, field: str, value: str | int) -> bool:
        """Set a field of the run. Return whether there is such a run."""
        return bool(await self.call("note", field, value))

    async def end(self, state: str) -> bytes:
        """Return the state that stands there now; b"" when there is no such run."""
        stands: bytes = await self.call("end", state)
        return stands


def _flat(cases: Sequence[CaseFields]) -> list[Argument]:
    return [part for c in cases for part in (c.case_id, c.data, c.size_bytes, c.description, c.earlier)]


def _pairs(counters: Mapping[str, float]) -> list[Argument]:
    return [part for item in counters.items() for part in item]
