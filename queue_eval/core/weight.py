"""Expected cost of a case: heavy cases start first, so that none of them is left for the end."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

CHARACTERS_PER_TOKEN = 4.0  # for English under the common vocabularies
CALL_OVERHEAD_TOKENS = 400  # a metric's own prompt, about


def estimated_tokens(text: str) -> int:
    return int(len(text) / CHARACTERS_PER_TOKEN) + 1


def case_weight(fields: Mapping[str, Any], *, judge_calls: int) -> float:
    """Tokens that the judge will read for a case, about: its text and the prompt around it, once for each call."""
    characters = sum(len(text) for text in _texts(fields.values()))
    return (characters / CHARACTERS_PER_TOKEN + CALL_OVERHEAD_TOKENS) * max(1, judge_calls)


def _texts(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from _texts(value.values())
        elif isinstance(value, list | tuple):
            yield from _texts(value)


def combined(estimates: Sequence[float], measured_s: Sequence[float]) -> list[float]:
    """Weights on one scale: measured seconds of an earlier run where there are any (not NaN), else the estimate in such
    seconds.
    """
    known = [(e, m) for e, m in zip(estimates, measured_s, strict=True) if not math.isnan(m)]
    estimated, seconds = math.fsum(e for e, _ in known), math.fsum(m for _, m in known)
    scale = seconds / estimated if estimated and seconds else 1.0
    return [e * scale if math.isnan(m) else m for e, m in zip(estimates, measured_s, strict=True)]


def heaviest_first(weights: list[tuple[float, int]]) -> list[int]:
    """Positions ordered by falling weight, then by position: the same input gives the same order."""
    return [position for _, position in sorted(weights, key=lambda pair: (-pair[0], pair[1]))]
