"""JSON as its standard has it: no NaN, no infinities, and no nesting that exhausts the reader."""

import json
import math
from typing import Any


def strict_json(text: str) -> Any:
    """ValueError, which names why."""
    try:
        return json.loads(text, parse_constant=no_number, parse_float=finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def no_number(word: str) -> float:
    raise ValueError(f"{word} is no number in JSON")


def finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else no_number(digits)
