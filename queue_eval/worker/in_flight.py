"""The cases that a worker holds."""

import asyncio
from collections.abc import Callable, Mapping

from queue_eval.core.attempt import QUARANTINE_AFTER
from queue_eval.ports.queue import Claim
from queue_eval.worker.case_executor import CaseExecutor


class InFlight:
    """Runs each claimed case as a task of its own."""

    def __init__(self, executor: CaseExecutor, *, ended: Callable[[Claim, BaseException | None], None]) -> None:
        """`ended` is called for each case, with the error that ended its task, if one did."""
        self._executor = executor
        self._ended = ended
        self._tasks: dict[asyncio.Task[None], Claim] = {}
        # of these: tasks whose lease is lost. They store what they spent, and their claims are no longer renewed.
        self._cancelled: set[asyncio.Task[None]] = set()
        self.cases_ended = 0

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def tasks(self) -> "set[asyncio.Task[None]]":
        return set(self._tasks)

    @property
    def claims(self) -> tuple[Claim, ...]:
        """Return the claims whose leases are to be renewed."""
        return tuple(claim for task, claim in self._tasks.items() if task not in self._cancelled)

    @property
    def size_bytes(self) -> int:
        return sum(claim.size_bytes for claim in self._tasks.values())

    @property
    def has_quarantined(self) -> bool:
        return any(claim.crashes >= QUARANTINE_AFTER for claim in self._tasks.values())

    @property
    def waited_s(self) -> Mapping[str, float]:
        """Return for how long each case has waited for the limiter."""
        return self._executor.waited_s()

    def start(self, claim: Claim) -> None:
        task = asyncio.create_task(self._executor.execute(claim), name=f"case {claim.case_id}")
        self._tasks[task] = claim
        task.add_done_callback(self._end)

    def cancel(self, claim: Claim) -> None:
        """The lease is lost: another worker may have the case by now."""
        for task, held in self._tasks.items():
            if held == claim:
                self._cancelled.add(task)
                task.cancel()

    async def release_all(self, *, timeout_s: float) -> None:
        """Release every case. What Redis does not take in time comes back when its lease ends."""
        for _ in range(2):
            tasks = set(self._tasks)
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=timeout_s)

    def _end(self, task: "asyncio.Task[None]") -> None:
        claim = self._tasks.pop(task)
        self._cancelled.discard(task)
        self.cases_ended += 1
        self._ended(claim, None if task.cancelled() else task.exception())
