"""The peers: each worker has its cases from the start and works them off one after the other."""

import heapq
import math
from collections.abc import Callable, Sequence
from itertools import zip_longest

Shards = list[list[int]]  # of each worker, the positions of its cases


def contiguous(weights: Sequence[float], workers: int) -> Shards:
    size = math.ceil(len(weights) / workers)
    return [list(range(first, min(first + size, len(weights)))) for first in range(0, size * workers, size)]


def round_robin(weights: Sequence[float], workers: int) -> Shards:
    return [list(range(first, len(weights), workers)) for first in range(workers)]


def packed(weights: Sequence[float], workers: int) -> Shards:
    """Longest processing time first: each case, by falling weight, to the worker with the least so far: by these weights at most a third above the best packing (Graham 1969)."""
    loads = [(0.0, n) for n in range(workers)]
    shards: Shards = [[] for _ in range(workers)]
    for position in sorted(range(len(weights)), key=lambda one: -weights[one]):
        load, n = heapq.heappop(loads)
        shards[n].append(position)
        heapq.heappush(loads, (load + weights[position], n))
    return shards


WAYS: dict[str, Callable[[Sequence[float], int], Shards]] = {
    "contiguous": contiguous,
    "round-robin": round_robin,
    "packed by weight": packed,
}


def dealt(shards: Shards) -> list[int | None]:
    """The order in which `worker --shard-index` deals each shard to its worker: round by round. None where a shard has no more."""
    return [position for row in zip_longest(*shards) for position in row]


def makespan_s(shards: Shards, spent_s: Sequence[float]) -> float:
    return max(math.fsum(spent_s[position] for position in shard) for shard in shards)


def makespans_s(spent_s: Sequence[float], weights: Sequence[float], workers: int) -> dict[str, float]:
    """By way."""
    return {way: makespan_s(split(weights, workers), spent_s) for way, split in WAYS.items()}


def makespan_with_a_loss_s(
    shards: Shards, spent_s: Sequence[float], *, lost: int, lost_at_s: float, back_after_s: float
) -> float:
    """A shard's worker dies and is replaced: what it had finished stays, what it was doing is done again."""
    ended = [math.fsum(spent_s[position] for position in shard) for shard in shards]
    at = 0.0
    for position in shards[lost]:
        if at + spent_s[position] > lost_at_s:
            ended[lost] += lost_at_s - at + back_after_s
            break
        at += spent_s[position]
    return max(ended)
