"""docs/explanation/limiter.md's promises, held against the real script by a clock of the test.

The expected values are the promises' own words, no formula of the limiter.
"""

from bisect import bisect_left
from dataclasses import dataclass

import pytest

from queue_eval.core.limits import Charge, Lane
from queue_eval.limiter.sync_script import Feedback
from testkit.redis_server import Server
from testkit.virtual_judges import Refusing
from testkit.virtual_limiters import sliding
from tests.contracts.test_limiter_script import Script

pytestmark = pytest.mark.long

BEFORE_S = 5.0  # of fair weather


@dataclass
class Crowd:
    """Processes that always have calls waiting, and report refusals with their next step, as a process does."""

    script: Script
    lane: Lane
    judge: Refusing
    processes: int
    retry_after_ms: int
    refused: int = 0
    tickets: int = 0

    def play(self) -> None:
        """From fair weather through the refusals, and two minutes and more of what follows."""
        at_ms, most = 0.0, max(4, self.judge.per_minute // 60 // self.processes)
        feedback = {n: Feedback() for n in range(self.processes)}
        waiting = dict.fromkeys(range(self.processes), 0)
        while at_ms < (self.judge.refuses[1] + 130) * 1000:
            for n in range(self.processes):
                fresh = [(f"t{self.tickets + i}", Charge()) for i in range(most - waiting[n])]
                self.tickets += len(fresh)
                reply = self.script.step(
                    1e12 + at_ms, f"p{n}", self.lane, generation="g1", feedback=feedback[n], waiters=fresh
                )
                self.script.redis.delete(self.script.keys.grants(f"p{n}"))
                granted, feedback[n] = reply["grants"] or (), Feedback()
                waiting[n] = most - len(granted)
                for grant in granted:
                    if not self.judge.admits(at_ms / 1000):
                        self.refused += 1
                        feedback[n].rate_limited(int(grant.split("|")[1]), self.retry_after_ms)
            at_ms += self._tick_ms(at_ms / 1000)

    def _tick_ms(self, at_s: float) -> float:
        """As often as the burst needs it; in the middle of an hour of refusals, seldom."""
        start, end = self.judge.refuses
        if start + 60 < at_s < end - 10:
            return 500.0
        return 20.0 if self.judge.per_minute > 600 else 100.0


@pytest.fixture
def script(redis_server: Server) -> Script:
    return Script(redis_server)


@pytest.mark.parametrize(
    ("per_minute", "refuses_s", "retry_after_ms"),
    [
        (600, 180.0, 0),
        pytest.param(3000, 180.0, 0, marks=pytest.mark.thorough),
        pytest.param(60, 3600.0, 0, marks=pytest.mark.thorough),
        pytest.param(600, 1.0, 0, marks=pytest.mark.thorough),
        pytest.param(3000, 180.0, 30_000, marks=pytest.mark.thorough),
        pytest.param(60_000, 30.0, 0, marks=pytest.mark.thorough),
    ],
)
def test_after_any_length_of_refusals_the_rate_is_back_within_a_minute(
    script: Script, per_minute: int, refuses_s: float, retry_after_ms: int
) -> None:
    judge = Refusing(per_minute, refuses=(BEFORE_S, BEFORE_S + refuses_s))
    crowd = Crowd(script, sliding(per_minute, 60.0), judge, processes=2, retry_after_ms=retry_after_ms)
    crowd.play()
    again_s = judge.refuses[1]
    first_s = judge.admitted[bisect_left(judge.admitted, again_s)]
    # half the rate within 30 s of the first success: the ten seconds from then on serve at least half of theirs, but for whole calls
    assert judge.served(first_s + 30, first_s + 40) >= 0.5 * per_minute / 6 - 1
    # 95 % within 60 s, and never above: what the burst rule keeps comes off, and a call at each end
    assert 0.95 * per_minute * 0.97 - 2 <= judge.served(first_s + 60, first_s + 120) <= per_minute
    # who is refused for an hour asks seldom: once in five seconds, or a twentieth of the rate
    assert crowd.refused <= max(refuses_s / 5, 0.05 * per_minute / 60 * refuses_s) + 200
