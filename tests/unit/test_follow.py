"""Waiting for a run to be over: through outages, and through a Redis that forgets it."""

from collections.abc import Awaitable, Callable

from queue_eval.core.errors import NoInputError, UnavailableError
from queue_eval.core.run import RunState, RunStats
from queue_eval.runs.follow import LOST_AFTER_S, RELEASED_WITHIN_S, Follower, Show
from testkit.fakes.clock import FakeClock

Look = RunState | Exception


class Looks:
    """A queue that answers what it is shown to; the last answer repeats. Only `stats` is asked."""

    def __init__(self, *looks: Look) -> None:
        self._looks = list(looks)
        self.leased = 0
        self.stalls = False

    async def stats(self) -> RunStats:
        look = self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]
        if isinstance(look, Exception):
            raise look
        return RunStats(
            state=look,
            total=2,
            ready=0 if self.stalls else 1,
            delayed=0,
            leased=self.leased,
            scored=0,
            dead=0,
            executions=0,
        )


def follower(
    looks: Looks,
    clock: FakeClock,
    resume: Callable[[], Awaitable[object]] | None = None,
    unknown_for_s: float = 0.0,
) -> Follower:
    async def nothing() -> None:
        return

    return Follower(
        looks,  # type: ignore[arg-type]
        resume=resume or nothing,
        brings_runs_back=resume is not None,
        unknown_for_s=unknown_for_s,
        notice=lambda _: None,
        sleep=clock.sleep,
        now=clock.now,
    )


def showing(shown: list[RunState]) -> Show:
    async def report(stats: RunStats) -> None:
        shown.append(stats.state)

    return report


async def test_an_outage_is_no_end() -> None:
    shown: list[RunState] = []
    looks = Looks(RunState.SEALED, UnavailableError("away"), UnavailableError("away"), RunState.DRAINED)
    ended = await follower(looks, FakeClock()).until_over(show=showing(shown), show_every_s=5.0)
    assert ended
    assert shown == [RunState.SEALED, RunState.DRAINED]


async def test_how_it_stands_is_reported_now_and_then_and_at_the_end() -> None:
    shown: list[RunState] = []
    looks = Looks(*[RunState.SEALED] * 25, RunState.ABORTED)
    await follower(looks, FakeClock()).until_over(show=showing(shown), show_every_s=5.0)
    assert shown == [RunState.SEALED] * 3 + [RunState.ABORTED]


async def test_a_run_that_redis_has_lost_is_brought_back() -> None:
    restored: list[int] = []

    async def restore() -> None:
        restored.append(1)

    looks = Looks(RunState.SEALED, NoInputError("unknown"), RunState.SEALED, RunState.DRAINED)
    assert await follower(looks, FakeClock(), restore).until_over()
    assert restored == [1]


async def test_a_run_that_was_never_known_is_waited_for_before_it_counts_as_lost() -> None:
    clock, restored_at = FakeClock(), []
    started_at = clock.now()

    async def restore() -> None:
        restored_at.append(clock.now() - started_at)
        looks._looks[:] = [RunState.DRAINED]

    looks = Looks(NoInputError("unknown"))
    assert await follower(looks, clock, restore).until_over()
    assert len(restored_at) == 1
    assert restored_at[0] >= LOST_AFTER_S


async def test_a_restoration_that_fails_is_tried_again() -> None:
    tries: list[int] = []

    async def restore() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise UnavailableError("away")
        looks._looks[:] = [RunState.DRAINED]

    looks = Looks(RunState.SEALED, NoInputError("unknown"))
    assert await follower(looks, FakeClock(), restore).until_over()
    assert len(tries) == 3


async def test_without_a_way_to_restore_it_the_store_shows_what_there_is() -> None:
    assert await follower(Looks(NoInputError("unknown")), FakeClock()).until_over() is None


async def test_an_aborted_run_is_over_when_what_was_held_is_given_back_or_its_holders_must_be_dead() -> None:
    clock = FakeClock()
    started_at = clock.now()
    looks = Looks(RunState.ABORTED)
    looks.leased = 2
    ended = await follower(looks, clock).until_over()
    assert ended
    assert RELEASED_WITHIN_S <= clock.now() - started_at < RELEASED_WITHIN_S + 2
    looks.leased = 0
    started_at = clock.now()
    assert await follower(looks, clock).until_over()
    assert clock.now() == started_at


async def test_a_follower_that_restores_nothing_waits_as_long_as_asked_for_a_run_to_be_enqueued() -> None:
    clock = FakeClock()
    started_at = clock.now()
    looks = Looks(*[NoInputError("unknown")] * 10, RunState.DRAINED)
    assert await follower(looks, clock, unknown_for_s=60.0).until_over()
    assert await follower(Looks(NoInputError("unknown")), clock, unknown_for_s=60.0).until_over() is None
    assert clock.now() - started_at < 70


async def test_cases_that_redis_has_lost_one_by_one_are_brought_back() -> None:
    restored: list[int] = []

    async def restore() -> None:
        restored.append(1)
        looks._looks[:] = [RunState.DRAINED]

    looks = Looks(RunState.SEALED)
    looks.stalls = True
    assert await follower(looks, FakeClock(), restore).until_over()
    assert restored == [1]
    # a moment between two steps of the queue is no loss
    looks = Looks(RunState.SEALED, RunState.SEALED, RunState.DRAINED)
    looks.stalls = True
    assert await follower(looks, FakeClock(), restore).until_over()
    assert restored == [1]


async def test_the_time_may_be_over_first() -> None:
    assert await follower(Looks(RunState.SEALED), FakeClock()).until_over(timeout_s=3.0) is None
