"""What providers put on the wire beside the answer: headers in their spellings, latencies, faults."""

import email.utils
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

# how a Retry-After may be spelt: a wait and the Unix time → headers
SPELLINGS: dict[str, Callable[[float, float], dict[str, str]]] = {
    "seconds": lambda wait_s, _: {"Retry-After": str(math.ceil(wait_s))},
    "fraction": lambda wait_s, _: {"Retry-After": f"{wait_s:.3f}"},
    "milliseconds": lambda wait_s, _: {"retry-after-ms": str(math.ceil(wait_s * 1000))},
    "date": lambda wait_s, now: {"Retry-After": email.utils.formatdate(math.ceil(now + wait_s), usegmt=True)},
    "reset": lambda wait_s, _: {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": duration(wait_s)},
    "anthropic": lambda wait_s, now: {
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": datetime.fromtimestamp(now + wait_s, UTC).isoformat(),
    },
    "none": lambda _wait_s, _now: {},
    "zero": lambda _wait_s, _now: {"Retry-After": "0"},
    "negative": lambda _wait_s, _now: {"Retry-After": "-1"},
    "day": lambda _wait_s, _now: {"Retry-After": "86400"},
    "89": lambda _wait_s, _now: {"Retry-After": "89"},
}


def duration(seconds: float) -> str:
    """As OpenAI writes it: `6m0s`, `1m30.5s`, `120ms`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds * 1000) / 1000, 60)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{rest:g}s"


def limit_headers(style: str, dimension: str, per_minute: float, left: float) -> dict[str, str]:
    """`openai`, `anthropic`, `azure` (which has sent -1 for what is left) or `none`."""
    match style:
        case "openai":
            name = "requests" if dimension == "requests" else "tokens"
            return {
                f"x-ratelimit-limit-{name}": f"{per_minute:.0f}",
                f"x-ratelimit-remaining-{name}": f"{max(0.0, left):.0f}",
            }
        case "anthropic":
            name = {"input": "input-tokens", "output": "output-tokens"}.get(dimension, dimension)
            return {
                f"anthropic-ratelimit-{name}-limit": f"{per_minute:.0f}",
                f"anthropic-ratelimit-{name}-remaining": f"{max(0.0, left):.0f}",
            }
        case "azure":
            return {"x-ratelimit-limit-requests": "-1", "x-ratelimit-remaining-requests": "-1"}
    return {}


def always(seconds: float) -> Callable[[], float]:
    return lambda: seconds


def latency(text: str, chance: random.Random) -> Callable[[], float]:
    """`0.2`, `uniform:0.1:0.4`, `lognormal:MEDIAN:SIGMA` or `pareto:LEAST:ALPHA`, in seconds."""
    kind, *numbers = text.split(":") if ":" in text else ("constant", text)
    values = [float(number) for number in numbers]
    match kind:
        case "constant":
            return always(values[0])
        case "uniform":
            return lambda: chance.uniform(*values)
        case "lognormal":
            return lambda: values[0] * math.exp(values[1] * chance.gauss(0, 1))
        case "pareto":
            return lambda: values[0] * chance.paretovariate(values[1])
    raise ValueError(f"{text} is no latency: seconds, uniform:A:B, lognormal:MEDIAN:SIGMA, pareto:LEAST:ALPHA")


@dataclass
class Fault:
    """What a request gets instead of an answer."""

    status: int = 200
    body: str = '{"error": {"message": "made to fail"}}'
    headers: dict[str, str] = field(default_factory=dict)
    text: str | None = None  # with status 200: the message's content
    hang_s: float = 0.0  # before it is looked at
    latency_s: float | None = None  # of the answer, after it was admitted; None: the provider's own
    cut: bool = False  # close the connection without an answer


def faults_by_chance(
    chance: random.Random, *, errors: float, resets: float, hangs: float, hang_s: float
) -> Callable[[], Fault | None]:
    """Shares of the requests that get a 503, a reset connection, or nothing for `hang_s`."""

    def draw() -> Fault | None:
        x = chance.random()
        if x < errors:
            return Fault(status=503)
        if x < errors + resets:
            return Fault(cut=True)
        if x < errors + resets + hangs:
            return Fault(hang_s=hang_s, cut=True)
        return None

    return draw
