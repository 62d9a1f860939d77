"""What `run` looks at again and again, wherever its workers are."""

import asyncio
import time

from queue_eval.core.errors import InterruptedRunError
from queue_eval.core.progress import Progress
from queue_eval.core.run import RunState, RunStats
from queue_eval.local.plan import Listeners, LocalPlan
from queue_eval.producer.producer import Produced
from queue_eval.runs.follow import Follower
from queue_eval.runs.resume import resume
from queue_eval.runs.run import Run
from queue_eval.wiring import stores


class Watch:
    """Shows the run's progress, and ends a run that is aborted, or held for too long."""

    def __init__(
        self, run: Run, plan: LocalPlan, listeners: Listeners, produced: Produced, *, started_at: float
    ) -> None:
        """`started_at`: by the monotonic clock, of the elapsed time that is shown."""
        self._run = run
        self._plan = plan
        self._listeners = listeners
        self._done_before = produced.stored + produced.dead
        self._started_at = started_at
        self._held_since: float | None = None
        self._follower = Follower(
            run.queue.steering,
            resume=lambda: resume(run),
            brings_runs_back=True,
            is_known=True,
            notice=listeners.notice,
            sleep=asyncio.sleep,
            now=time.monotonic,
        )

    async def look(self) -> RunStats | None:
        """Return the run's state and counts; None while Redis is unavailable or gets the run again.

        InterruptedRunError when the run was aborted, or held for longer than workers.hold_timeout_s.
        """
        stats = await self._follower.look()
        if stats:
            self._show(stats)
            if stats.state is RunState.ABORTED:
                await stores.note_abort(self._run.store)
                raise InterruptedRunError(f"run {self._run.run_id!r} was aborted")
            self._check_hold(stats)
        return stats

    def _show(self, stats: RunStats) -> None:
        price = self._run.settings.judge.token_price
        elapsed_s = time.monotonic() - self._started_at
        self._listeners.progress(Progress.of(stats, elapsed_s=elapsed_s, done_before=self._done_before, price=price))

    def _check_hold(self, stats: RunStats) -> None:
        timeout_s = self._run.settings.workers.hold_timeout_s
        if stats.hold is None or stats.state.over:
            self._held_since = None
        elif self._held_since is None:
            self._held_since = time.monotonic()
            self._listeners.notice(f"held, no worker claims cases: {stats.hold}")
        elif time.monotonic() - self._held_since > timeout_s:
            raise InterruptedRunError(
                f"held for {timeout_s:g} s: {stats.hold}; mend it, then: {self._plan.resume_command}"
            )
