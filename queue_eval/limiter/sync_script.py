"""What a process sends to the limiter's script in Redis, and what it gets back."""

import json
import math
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis

from queue_eval.core.limiter_stats import SLOT_S
from queue_eval.core.limits import MOST_PAUSE_S, NO_CHARGE, WINDOW_S, Charge, Lane
from queue_eval.limiter.keys import LimiterKeys

LEAST_SLEEP_S = 0.002
BLOCKED_S = 0.05


def source(*parts: str) -> str:
    """Return a script made of its parts, after the figures that Python and Lua share."""
    shared = (
        f"local MOST_PAUSE_MS, SLOT_MS = {int(MOST_PAUSE_S * 1000)}, {int(SLOT_S * 1000)}"
        f" local WINDOW_S = {{{WINDOW_S[0]}, {WINDOW_S[1]}}}"
    )
    folder = files("queue_eval.limiter") / "lua"
    return "\n".join([shared, *((folder / f"{part}.lua").read_text(encoding="utf-8") for part in parts)])


def lane_fields(lane: Lane) -> dict[str, Any]:
    """As the lane's hash keeps them; `configured` shows whether a run has come back with other limits."""
    fields: dict[str, Any] = {
        "weight": lane.weight,
        "window": lane.counting.window,
        "window_s": lane.counting.window_s,
        "burst": lane.counting.burst or 0,
        "headers": int(lane.obeys_headers),
        **{f"limit_{d}": limit for d, limit in lane.limits.known.items()},
    }
    in_flight = {
        "most_in_flight": lane.in_flight.most or 0,
        "first_in_flight": lane.in_flight.first or 0,
        "timeout_s": lane.in_flight.timeout_s,
    }
    return {**fields, "configured": json.dumps(fields, sort_keys=True), **in_flight}


@dataclass(slots=True, kw_only=True)
class Feedback:
    """What a process reports since its last request."""

    back: Charge = (
        NO_CHARGE  # given back, of calls that the provider's window still holds; negative where they took more
    )
    late: Charge = NO_CHARGE  # of older ones
    refused: int = 0  # answers 429
    refused_serial: int = 0  # of the newest release among them: what was released before the last cut is no evidence
    pause_ms: int = 0
    headers: dict[str, float] = field(default_factory=dict)  # limits per minute that have changed
    output_tokens: float = 0.0  # of an answer, in the mean; 0: no news
    answers: int = 0
    load: float = 0.0  # of these, in sum: the part that each took of the time it may take
    timeouts: int = 0  # calls without an answer in time
    timeouts_serial: int = 0  # of the newest release among them

    def answered(self, load: float) -> None:
        """`load`: the part that the call took of the time it may take."""
        self.answers += 1
        self.load += load

    def timed_out(self, serial: int) -> None:
        """`serial`: of the call's permit, 0 where it is not known."""
        self.timeouts += 1
        self.timeouts_serial = max(self.timeouts_serial, serial)

    def rate_limited(self, serial: int, pause_ms: int) -> None:
        self.refused += 1
        self.refused_serial = max(self.refused_serial, serial)
        self.pause_ms = max(self.pause_ms, pause_ms)

    def add(self, other: "Feedback") -> None:
        self.back += other.back
        self.late += other.late
        self.refused += other.refused
        self.refused_serial = max(self.refused_serial, other.refused_serial)
        self.pause_ms = max(self.pause_ms, other.pause_ms)
        self.headers |= other.headers
        self.output_tokens = self.output_tokens or other.output_tokens
        self.answers += other.answers
        self.load += other.load
        self.timeouts += other.timeouts
        self.timeouts_serial = max(self.timeouts_serial, other.timeouts_serial)

    def to_json(self) -> dict[str, Any]:
        return {
            "back": _fields(self.back),
            "late": _fields(self.late),
            "refused": {"count": self.refused, "serial": self.refused_serial, "pause_ms": self.pause_ms},
            "headers": self.headers,
            "output_tokens": self.output_tokens,
            "ended": {
                "count": self.answers,
                "load": round(self.load, 6),
                "timeouts": self.timeouts,
                "serial": self.timeouts_serial,
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRequest:
    """One call of the script. Sent again unchanged when its reply was lost: Redis carries out each number once."""

    process: str
    name: str  # of all incarnations of the process
    takes_share: bool  # it looks often enough for Redis to see in time that it is gone
    held_share: float  # of the rate: promised by the last reply
    join: bool
    new: bool  # its first incarnation: its lane's limits are news
    number: int
    acked: int
    generation: str
    fresh: str  # of this request alone
    lateness_s: float
    silent_s: float  # without a step for so long, it is gone, and its tickets with it
    feedback: Feedback
    waiters: list[tuple[str, Charge]]
    in_flight: int  # permits of this process that are not settled

    def to_json(self, lane: dict[str, Any]) -> str:
        return json.dumps(
            {
                "process": self.process,
                "name": self.name,
                "takes_share": self.takes_share,
                "held_share": self.held_share,
                "join": self.join,
                "new": self.new,
                "number": self.number,
                "acked": self.acked,
                "generation": self.generation,
                "fresh": self.fresh,
                "lateness_s": self.lateness_s,
                "silent_s": self.silent_s,
                "lane": lane,
                "in_flight": self.in_flight,
                **self.feedback.to_json(),
                "waiters": [(ticket, charge.input_tokens, charge.output_tokens) for ticket, charge in self.waiters],
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    ticket: str
    serial: int
    age_s: float  # since the release, when the reply was written
    may_take_s: float  # until it leaves its process: later, it would be one too many in some window

    @classmethod
    def read(cls, row: str, now_ms: float) -> "Grant":
        """Read a row as the script writes it.

        A row that another Redis user has written becomes a grant without a ticket: the process acknowledges it like the
        others, and uses it for no call.
        """
        try:
            ticket, serial, at, may_take_s = row.split("|")
            return cls(
                ticket=ticket, serial=int(serial), age_s=(now_ms - float(at)) / 1000, may_take_s=float(may_take_s)
            )
        except ValueError:
            return cls(ticket="", serial=0, age_s=0.0, may_take_s=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReply:
    generation: str
    grants: tuple[Grant, ...]
    processes: int
    share: float  # of the rate, that this process may use without Redis
    paused_s: float
    base: tuple[
        float, float, float
    ]  # what stood in the lane's queue before this step's waiters, ever: requests, input, output
    out: tuple[float, float, float]  # what has left it, ever
    queue: str  # this lane's, since it was last found damaged
    window_s: float
    is_full: bool = False  # as many calls are in flight as may be
    is_bounded: bool = False  # there is a bound of the calls in flight
    output_tokens: float = 0.0  # of an answer, as a process has reported it; 0: no process has
    level: dict[str, float] = field(default_factory=dict)
    burst: dict[str, float] = field(default_factory=dict)
    rate: dict[str, float] = field(default_factory=dict)  # per second, now
    limit: dict[str, float] = field(default_factory=dict)  # per minute, as configured or by headers
    alone: dict[str, float] = field(default_factory=dict)  # per second: the share of this process

    @classmethod
    def of(cls, body: dict[str, Any]) -> "SyncReply":
        now_ms = body["now_ms"]
        return cls(
            generation=body["generation"],
            grants=tuple(Grant.read(row, now_ms) for row in body["grants"] or ()),
            processes=int(body["processes"]),
            share=float(body["share"]),
            paused_s=body["paused_ms"] / 1000,
            base=tuple(body["base"]),
            out=tuple(body["out"]),
            queue=body["queue"],
            window_s=body["window_s"],
            is_full=body["is_full"],
            is_bounded=body["is_bounded"],
            output_tokens=body["output_tokens"],
            # Lua knows one kind of table: an empty one may arrive as a list
            **{name: dict(body[name]) for name in ("level", "burst", "rate", "limit", "alone")},
        )

    def wait_s(self, before: tuple[float, float, float], charge: Charge) -> float:
        """Until a call may be released that has `before` before it in its lane's queue, were there no other lanes: at
        the earliest.
        """
        requests, input_, output = (max(0.0, b - o) for b, o in zip(before, self.out, strict=True))
        ahead = {"requests": requests, "input": input_, "output": output, "tokens": input_ + output}
        if any(rate <= 0 for rate in self.rate.values()):
            return BLOCKED_S  # what silent processes may be using is all there is
        waits = [
            (ahead[d] + min(charge.amounts[d], self.burst[d]) - self.level[d]) / rate for d, rate in self.rate.items()
        ]
        longest_s = max(self.paused_s, *waits, 0.0)
        # it could go, and did not: another run's call comes first, and the step that releases that releases this
        return max(longest_s, LEAST_SLEEP_S) if longest_s > 0 else math.inf


def _fields(charge: Charge) -> dict[str, int]:
    return {"requests": charge.requests, "input": charge.input_tokens, "output": charge.output_tokens}


class SyncScript:
    """The script on one limiter's keys, for one lane."""

    def __init__(self, redis: Redis, keys: LimiterKeys, lane: Lane) -> None:
        self._script = redis.register_script(source("clock", "limits", "in_flight", "sync"))
        self._keys = keys.of_sync
        self._lane = {"name": lane.name, "fields": lane_fields(lane)}

    async def run(self, request: SyncRequest) -> SyncReply | None:
        """None: the limiter has forgotten this process, and nothing was done."""
        body = json.loads(await self._script(keys=self._keys, args=[request.to_json(self._lane)]))
        return None if body.get("forgotten") else SyncReply.of(body)
