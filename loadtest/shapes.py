"""How long the cases of a set keep a judge busy, by distribution; and what their texts let one guess of it."""

import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

HALUEVAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "halueval_qa.jsonl"


def scaled(drawn: list[float], mean_s: float) -> list[float]:
    """To this very mean, so that a total is a round figure and no matter of chance."""
    total = math.fsum(drawn)
    return [mean_s * len(drawn) * one / total for one in drawn]


def log_normal(count: int, mean_s: float, chance: random.Random, *, spread: float = 0.8) -> list[float]:
    return scaled([chance.lognormvariate(0.0, spread) for _ in range(count)], mean_s)


def uniform(count: int, mean_s: float, chance: random.Random) -> list[float]:
    return scaled([chance.uniform(0.5, 1.5) for _ in range(count)], mean_s)


def pareto(count: int, mean_s: float, chance: random.Random) -> list[float]:
    """Tail exponent 1.5, as of file sizes; cut at 100 times the least, for a judge has a context window."""
    return scaled([min(100.0, chance.paretovariate(1.5)) for _ in range(count)], mean_s)


def real_lengths(count: int, mean_s: float, chance: random.Random) -> list[float]:
    """As the texts of HaluEval's questions are long. FileNotFoundError where that file is not beside this project."""
    with HALUEVAL.open() as file:
        lengths = [float(sum(len(str(value)) for value in json.loads(line).values())) for line in file]
    return scaled(chance.choices(lengths, k=count), mean_s)


SHAPES: dict[str, Callable[[int, float, random.Random], list[float]]] = {
    "uniform": uniform,
    "log-normal": lambda count, mean_s, chance: log_normal(count, mean_s, chance, spread=1.0),
    "Pareto": pareto,
    "real lengths": real_lengths,
}


def bound_s(spent_s: Sequence[float], at_once: int) -> float:
    """No schedule of so many cases at a time ends earlier."""
    return max(math.fsum(spent_s) / at_once, *spent_s)


def guessed(spent_s: list[float], chance: random.Random, *, error: float = 0.3) -> list[float]:
    """Weights as texts show them: right but for a log-normal error of this spread. 0: exact; infinite: no idea at all."""
    if math.isinf(error):
        return [chance.random() for _ in spent_s]
    return [one * chance.lognormvariate(0.0, error) for one in spent_s]
