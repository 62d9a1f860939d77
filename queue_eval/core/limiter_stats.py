"""What the limiter shows of itself: now, and over time."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from queue_eval.core.limits import DIMENSIONS, Limits

SLOT_S = 5.0
_UNITS = {"requests": "requests", "input": "input tokens", "output": "output tokens", "tokens": "tokens"}
ROWS = 360  # of a timeline in the report, at most
MOST = 1e15  # of any figure; infinite and not-a-number are more
MOST_LANES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A stretch of the limiter's life: SLOT_S seconds, or several such. Stretches without a call are not kept."""

    at: float  # Unix seconds, Redis' clock
    span_s: float = SLOT_S
    released: int = 0
    lanes: dict[str, int] = field(default_factory=dict)  # releases by run
    refused: int = 0  # answers 429
    cuts: int = 0
    paused_s: float = 0.0
    waiting: int = 0  # calls in the queue at the end
    factor: float = 1.0  # the controller's share of the rate, at the end
    used: dict[str, float] = field(default_factory=dict)  # net of settlements, by limited dimension
    limits: dict[str, float] = field(default_factory=dict)  # per minute, at the end

    @classmethod
    def of(cls, row: Any) -> "Slot | None":
        """Read a row as the limiter's script writes it. None for anything else: every worker's user may write there."""
        try:
            slot = cls(
                at=row["at"],
                released=int(row["released"]),
                lanes={name: int(n) for name, n in dict(row["lanes"]).items()},
                refused=int(row["refused"]),
                cuts=int(row["cuts"]),
                paused_s=row["paused_ms"] / 1000,
                waiting=int(row["waiting"]),
                factor=row["factor"],
                used=dict(row["used"]),
                limits=dict(row["limits"]),
            )
        except (LookupError, TypeError, ValueError, OverflowError):
            return None
        return slot if slot.is_sound else None

    @property
    def is_sound(self) -> bool:
        """Whether every figure of it is one."""
        tables = (self.lanes, self.used, self.limits)
        plain = (self.at, self.span_s, self.released, self.refused, self.cuts, self.paused_s, self.waiting, self.factor)
        if not all(
            isinstance(table, dict) and len(table) <= MOST_LANES and all(map(_is_name, table)) for table in tables
        ):
            return False
        figures = (*plain, *(figure for table in tables for figure in table.values()))
        return all(map(_is_figure, figures)) and self.at >= 0 and self.span_s > 0

    def __add__(self, later: "Slot") -> "Slot":
        return Slot(
            at=self.at,
            span_s=later.at + later.span_s - self.at,
            released=self.released + later.released,
            lanes=_sum(self.lanes, later.lanes),
            refused=self.refused + later.refused,
            cuts=self.cuts + later.cuts,
            paused_s=self.paused_s + later.paused_s,
            waiting=later.waiting,
            factor=later.factor,
            used=_sum(self.used, later.used),
            limits=later.limits,
        )


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and len(name) <= 200


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST


def _sum(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def in_words(limits: Limits, among: Limits | None = None) -> str:
    """`594 of 600 requests/min, …`"""
    parts = []
    for d, limit in limits.known.items():
        of = "" if among is None or among.known.get(d) is None else f" of {among.known[d]:,.0f}"
        parts.append(f"{limit:,.0f}{of} {_UNITS[d]}/min")
    return ", ".join(parts) or "no limit"


def coalesced(slots: Sequence[Slot], rows: int = ROWS) -> list[Slot]:
    """At most about `rows` stretches of equal length, from the first slot on."""
    if not slots:
        return []
    span_s = slots[-1].at + SLOT_S - slots[0].at
    step_s = SLOT_S * max(1, -(-span_s // (SLOT_S * rows)))
    found: dict[int, Slot] = {}
    for slot in slots:
        index = int((slot.at - slots[0].at) // step_s)
        found[index] = found[index] + slot if index in found else slot
    return list(found.values())


def slots_of(data: bytes | None) -> list[Slot]:
    """From the store, without what cannot be read."""
    try:
        rows = json.loads(data) if data else []
    except (ValueError, RecursionError):
        return []
    return list(filter(None, map(_stored, rows if isinstance(rows, list) else ())))


def _stored(row: Any) -> Slot | None:
    try:
        slot = Slot(**row)
    except TypeError:
        return None
    return slot if slot.is_sound else None


def rows_read(rows: Sequence[bytes]) -> list[Slot]:
    """Of the limiter's timeline, without what its script has not written."""
    found = []
    for row in rows:
        try:
            found.append(Slot.of(json.loads(row)))
        except (ValueError, RecursionError):
            continue
    return list(filter(None, found))


def merged(stored: bytes | None, seen: Sequence[Slot], *, since: float) -> bytes:
    """The stored timeline with what the limiter shows now: of two stretches of one time the later word counts."""
    slots = {slot.at: slot for slot in (*slots_of(stored), *seen) if slot.at + slot.span_s > since}
    rows = [asdict(slots[at]) for at in sorted(slots)]
    return (json.dumps(rows, separators=(",", ":")) + "\n").encode()


def utilisation(slots: Sequence[Slot], seconds: float) -> float | None:
    """Of the limits, over that time: the dimension that comes closest. None when nothing is limited."""
    shares = [
        sum(slot.used.get(d, 0.0) * 60 / slot.limits[d] for slot in slots if slot.limits.get(d)) / seconds
        for d in DIMENSIONS
        if any(slot.limits.get(d) for slot in slots)
    ]
    return max(shares, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneSeen:
    run_id: str
    weight: float
    waiting: int
    seen_s_ago: float
    configured: Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterStats:
    """One consistent look at a limiter."""

    limits: Limits  # per minute, in force: the strictest of the live runs' and the provider's headers
    headers: Limits  # as the provider's answers last named them
    rate: Limits  # per minute, now: after the burst rule and the controller
    factor: float  # the controller's share of the rate; below 1 after answers 429
    lanes: tuple[LaneSeen, ...]
    waiting: int
    released: int
    refused: int  # answers 429
    cuts: int
    pauses: int
    paused_s: float  # left of a pause
    processes: int  # that take part now
    jitter_s: float  # how late releases leave, measured
    outage_share: Limits  # per minute and process, if Redis went away now
    utilisation: float | None  # of the limits over the last minute
    in_flight: int = 0  # calls at the judge
    most_in_flight: int | None = None  # as configured, or as the judge has shown; None: as many as are asked for
