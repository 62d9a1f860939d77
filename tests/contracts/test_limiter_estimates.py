"""docs/explanation/limiter.md: a limit of tokens holds though answers are many times longer than was guessed.

In virtual time. What counts is what the provider counts: the tokens that a call takes in truth, when it leaves.
"""

import asyncio
import random
from itertools import accumulate

import pytest

from queue_eval.core.limits import Charge, Counting, Lane, Limits
from queue_eval.judge.estimate import Estimates
from testkit.redis_server import Server
from testkit.virtual_limiters import World, in_virtual_time, now

pytestmark = pytest.mark.long

WINDOW_S = 60.0
PER_MINUTE = 120_000  # output tokens
ANSWER = 3_000  # tokens; twenty times the guess
CALLS = 1_000
SECONDS = 240.0


def fullest(left: list[tuple[float, int]], start_s: float) -> int:
    """The most tokens that left within a window that begins at `start_s` or later."""
    after = [(at, tokens) for at, tokens in left if at >= start_s]
    sums = [0, *accumulate(tokens for _, tokens in after)]
    most = end = 0
    for begin, (at, _) in enumerate(after):
        while end < len(after) and after[end][0] < at + WINDOW_S:
            end += 1
        most = max(most, sums[end] - sums[begin])
    return most


@pytest.mark.parametrize(
    ("processes", "latency_s"),
    [(1, 2.0), (1, 20.0), pytest.param(8, 2.0, marks=pytest.mark.thorough), (8, 20.0)],
)
def test_once_an_answer_was_seen_the_calls_that_wait_cost_what_it_shows(
    redis_server: Server, processes: int, latency_s: float
) -> None:
    lane = Lane(name="r", weight=1.0, limits=Limits(output=PER_MINUTE), counting=Counting(window_s=WINDOW_S))
    world = World(redis_server, lane, processes=processes, calls_each=0)
    chance = random.Random(1)
    left: list[tuple[float, int]] = []
    answered: list[float] = []

    async def call(number: int, estimates: Estimates) -> None:
        limiter, tokens = world.limiters[number], int(ANSWER * chance.uniform(0.5, 1.5))

        def estimate() -> Charge:
            return estimates.charge(2, "verdicts", limiter.output_tokens)

        permit = await limiter.acquire(estimate(), estimate)
        left.append((now(), tokens))
        await asyncio.sleep(latency_s)
        answered.append(now())
        limiter.settle(permit, Charge(output_tokens=tokens), answered=True)
        estimates.learn(2, "verdicts", input_tokens=1, output_tokens=tokens)
        limiter.answers_take(estimates.output_tokens)

    async def scene() -> None:
        async with world:
            known = [Estimates() for _ in range(processes)]
            calls = [asyncio.create_task(call(n % processes, known[n % processes])) for n in range(CALLS)]
            await asyncio.sleep(SECONDS)
            for task in calls:
                task.cancel()

    in_virtual_time(scene)
    assert fullest(left, answered[0] + 0.1) <= 1.1 * PER_MINUTE  # each process asks Redis that often
    # what left too cheap is made up for, and no more than that
    late = sum(tokens for at, tokens in left if at >= SECONDS - 60)
    assert late >= 0.85 * PER_MINUTE
