"""What a provider allows, what a call takes from it, and what a run may take beside others."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Window = Literal["sliding", "fixed", "bucket"]

DIMENSIONS = ("requests", "input", "output", "tokens")

MOST_REQUESTS = 1e9  # in a minute
MOST = 1e12  # of tokens
WINDOW_S = (0.1, 86400.0)
FIRST_IN_FLIGHT = 4
MOST_PAUSE_S = 60.0  # that a judge can ask for; it is asked again then

PRIORITY_WEIGHTS = {"pr": 100.0, "nightly": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Per minute; None: no such limit. `tokens` counts input and output together."""

    requests: float | None = None
    input: float | None = None
    output: float | None = None
    tokens: float | None = None

    @property
    def known(self) -> dict[str, float]:
        return {name: value for name in DIMENSIONS if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What one judge call takes from its limits."""

    requests: int = 1
    input_tokens: int = 0
    output_tokens: int = 0

    def __sub__(self, other: "Charge") -> "Charge":
        return Charge(
            requests=self.requests - other.requests,
            input_tokens=self.input_tokens - other.input_tokens,
            output_tokens=self.output_tokens - other.output_tokens,
        )

    def __add__(self, other: "Charge") -> "Charge":
        return Charge(
            requests=self.requests + other.requests,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
        )

    @property
    def amounts(self) -> dict[str, int]:
        """By dimension."""
        return {
            "requests": self.requests,
            "input": self.input_tokens,
            "output": self.output_tokens,
            "tokens": self.input_tokens + self.output_tokens,
        }


ONE_REQUEST = Charge()
NO_CHARGE = Charge(requests=0)  # also the use of a permit whose request never left


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """How the provider counts."""

    window: Window = "sliding"
    window_s: float = 60.0
    burst: float | None = None  # requests at once; None: chosen by the burst rule


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """How many calls may be with the judge at once, of all runs together."""

    most: int | None = None  # as configured
    first: int | None = None  # to begin with; None: as many as are asked for
    timeout_s: float = 120.0  # after which a call is given up


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A run in the limiter's queue: its share beside other runs, and the limits that it was configured with."""

    name: str
    weight: float
    limits: Limits
    counting: Counting
    obeys_headers: bool = True
    in_flight: InFlight = InFlight()


def pause_s(asked_s: float | None) -> float:
    """Return the pause that a judge asked for, as far as it is granted; 0 where it asked for none."""
    return min(max(asked_s or 0.0, 0.0), MOST_PAUSE_S)


def weight_of(priority: str | float) -> float:
    """A class by its name, a weight as it is; also a weight in words. ValueError for anything else."""
    if priority in PRIORITY_WEIGHTS:
        return PRIORITY_WEIGHTS[str(priority)]
    weight = float(priority)
    if not 0.001 <= weight <= 1e6:
        raise ValueError(f"{priority} is no weight; weights go from 0.001 to 1,000,000")
    return weight


def limits_of(kept: Mapping[str, Any]) -> Limits:
    """Read the limits of eval.yaml's section as it is dumped. ValueError or KeyError when they cannot be read."""
    return Limits(
        requests=_amount(kept["requests_per_minute"], most=MOST_REQUESTS),
        input=_amount(kept["input_tokens_per_minute"]),
        output=_amount(kept["output_tokens_per_minute"]),
        tokens=_amount(kept["tokens_per_minute"]),
    )


def lane_of(run_id: str, kept: Mapping[str, Any]) -> Lane:
    """Read the lane of a run from eval.yaml's section of limits as it is dumped. ValueError when it cannot be read."""
    try:
        window, headers = kept["window"], kept["headers"]
        if window not in get_args(Window) or not isinstance(headers, bool):
            raise ValueError(f"{window!r} is no window, or {headers!r} neither true nor false")
        return Lane(
            name=run_id,
            weight=weight_of(kept["priority"]),
            limits=limits_of(kept),
            counting=Counting(
                window=window,
                window_s=_number(kept["window_s"], *WINDOW_S),
                burst=_amount(kept["burst"], least=1.0),
            ),
            obeys_headers=headers,
            in_flight=_in_flight(kept),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"no limits: {error}") from None


def _in_flight(kept: Mapping[str, Any]) -> InFlight:
    """A judge of which no limit is known may be one that gets slow: it is begun with few calls."""
    most = _amount(kept.get("max_in_flight"), least=1.0)
    return InFlight(most=None if most is None else int(most), first=None if limits_of(kept).known else FIRST_IN_FLIGHT)


def _amount(kept: Any, *, least: float = 0.0, most: float = MOST) -> float | None:
    return None if kept is None else _number(kept, least, most)


def _number(kept: Any, least: float, most: float) -> float:
    """A number above 0, from `least` to `most`."""
    if isinstance(kept, bool) or not isinstance(kept, int | float) or not (kept > 0 and least <= kept <= most):
        raise ValueError(f"{kept!r} is no amount from {least:g} to {most:g}")
    return float(kept)
