"""The limiter from outside: what it does, what it did, and its screws. Never takes part in it."""

import json
import logging
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis

from queue_eval.core.bucket import PAUSE_COUNTED_S, recovered
from queue_eval.core.limiter_stats import SLOT_S, LaneSeen, LimiterStats, Slot, rows_read, utilisation
from queue_eval.core.limits import DIMENSIONS, Lane, Limits
from queue_eval.limiter.keys import LimiterKeys
from queue_eval.limiter.outage import SHARE
from queue_eval.limiter.sync_script import lane_fields, source

LANE_LIVE_S = 60.0
LAST_MINUTE_S = 60.0
KEEP_S = 86400
MOST = 1e15  # a number of ours; the script has the same

log = logging.getLogger("queue_eval.limiter")


class LimiterView:
    def __init__(self, redis: Redis, *, key: str) -> None:
        self._redis = redis
        self._keys = LimiterKeys(key)
        self._tune = redis.register_script(source("clock", "tune"))

    async def stats(self) -> LimiterStats | None:
        """None when no process has used the limiter yet, or Redis lost it."""
        keys = self._keys
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hgetall(keys.state)
            pipe.zrange(keys.lanes, 0, -1, withscores=True)
            pipe.lrange(keys.timeline, -int(LAST_MINUTE_S / SLOT_S), -1)
            pipe.time()
            raw, lanes, rows, (seconds, micros) = await pipe.execute()
        if b"generation" not in raw:
            return None
        state = _numbers(raw)
        now_ms = seconds * 1000 + micros / 1000
        seen = await self._lanes([(name.decode(errors="replace"), (now_ms - at) / 1000) for name, at in lanes])
        factor = _factor(state, now_ms)
        rate = {d: 60 * factor * state[f"rate_{d}"] for d in DIMENSIONS if f"rate_{d}" in state}
        processes = int(state.get("processes", 0))
        return LimiterStats(
            limits=_limits(state, "limit_"),
            headers=_limits(state, "header_"),
            rate=Limits(**rate),
            factor=factor,
            lanes=seen,
            waiting=sum(lane.waiting for lane in seen),
            released=int(state.get("released", 0) - state.get("given_back", 0)),
            refused=int(state.get("refused", 0)),
            cuts=int(state.get("cuts", 0)),
            pauses=int(state.get("pauses", 0)),
            paused_s=max(0.0, (state.get("paused_until", 0) - now_ms) / 1000),
            processes=processes,
            jitter_s=state.get("jitter_s", 0),
            outage_share=Limits(**{d: SHARE * r / max(1, processes) for d, r in rate.items()}),
            utilisation=_utilisation(rows_read(rows), now_ms / 1000),
            in_flight=int(state.get("in_flight", 0)),
            most_in_flight=int(state["most"]) if "most" in state else None,
        )

    async def _lanes(self, found: list[tuple[str, float]]) -> tuple[LaneSeen, ...]:
        async with self._redis.pipeline(transaction=True) as pipe:
            for name, _ in found:
                pipe.hgetall(self._keys.lane(name))
                pipe.llen(self._keys.fifo(name))
            replies = await pipe.execute()
        seen = []
        for (name, ago_s), raw, waiting in zip(found, replies[::2], replies[1::2], strict=True):
            lane = _numbers(raw)
            if -1 <= ago_s <= LANE_LIVE_S:
                weight = lane.get("weight", 1)
                seen.append(
                    LaneSeen(
                        run_id=name,
                        weight=weight,
                        waiting=waiting,
                        seen_s_ago=ago_s,
                        configured=_limits(lane, "limit_"),
                    )
                )
        return tuple(seen)

    async def forget(self, prefix: str) -> None:
        """Processes whose names begin so have ended: what they were promised for an outage is free at once."""
        keys = self._keys
        for key in (keys.shares, keys.in_flight, keys.processes):
            known: Any = await self._redis.hgetall(key)
            names = [name for name in known if name.startswith(prefix.encode())]
            if names:
                await self._redis.hdel(key, *names)

    async def timeline(self) -> list[Slot]:
        """The last day at most, with the stretch that is under way."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.lrange(self._keys.timeline, 0, -1)
            pipe.hgetall(self._keys.state)
            rows, raw = await pipe.execute()
        slots = rows_read(rows)
        if len(slots) < len(rows):
            log.warning("%d rows of the limiter's timeline cannot be read; they are left out", len(rows) - len(slots))
        state = _numbers(raw)
        if "slot" in state and (under_way := _under_way(state, raw.get(b"slot_lanes", b"{}"))):
            slots.append(under_way)
        return slots

    async def tune(self, lane: Lane, changes: dict[str, float | None]) -> Limits:
        """Changes limits (by dimension, per minute; None lifts one) or `weight` of a run, for all processes and all
        calls that wait already.

        `lane` is what the run was configured with: workers that come later find the change, and keep it. The run's
        limits afterwards.
        """
        named = {what: what if what == "weight" else f"limit_{what}" for what in changes}
        body = {
            "configured": lane_fields(lane),
            "set": {named[what]: amount for what, amount in changes.items() if amount is not None},
            "lift": [named[what] for what, amount in changes.items() if amount is None],
        }
        keys = self._keys
        found = await self._tune(
            keys=[keys.lane(lane.name), keys.state, keys.lanes], args=[lane.name, json.dumps(body), KEEP_S]
        )
        return Limits(**{d: float(limit) for d, limit in zip(DIMENSIONS, found, strict=True) if limit is not None})


def _numbers(raw: dict[bytes, bytes]) -> dict[str, float]:
    """Return the fields of a hash that are numbers. Other Redis users may have written the rest."""
    found = {}
    for name, text in raw.items():
        with suppress(ValueError):
            if abs(number := float(text)) < MOST:
                found[name.decode(errors="replace")] = number
    return found


def _limits(fields: dict[str, float], prefix: str) -> Limits:
    return Limits(**{d: fields[prefix + d] for d in DIMENSIONS if prefix + d in fields})


def _factor(state: dict[str, float], now_ms: float) -> float:
    if not {"cut_at", "cut_from", "cut_to"} <= state.keys():
        return 1.0
    from_ms = max(state["cut_at"], state.get("paused_until", 0) - PAUSE_COUNTED_S * 1000)
    return recovered(state["cut_from"], state["cut_to"], (now_ms - from_ms) / 1000)


def _utilisation(slots: list[Slot], now_s: float) -> float | None:
    recent = [slot for slot in slots if slot.at + slot.span_s > now_s - LAST_MINUTE_S]
    if not recent:
        return None
    # up to the beginning of the stretch that is still under way
    return utilisation(recent, max(now_s // SLOT_S * SLOT_S, recent[-1].at + SLOT_S) - recent[0].at)


def _under_way(state: dict[str, float], slot_lanes: bytes) -> Slot | None:
    """Return the stretch that is not in the timeline yet; None where its fields are damaged."""
    try:
        lanes = dict(json.loads(slot_lanes))
    except (ValueError, TypeError, RecursionError):
        lanes = {}
    limits = _limits(state, "limit_").known
    return Slot.of(
        {
            "at": state["slot"] * SLOT_S,
            "released": state.get("slot_released", 0),
            "lanes": {run: calls for run, calls in lanes.items() if isinstance(calls, int | float)},
            "refused": state.get("slot_refused", 0),
            "cuts": state.get("slot_cuts", 0),
            "paused_ms": state.get("slot_paused_ms", 0),
            "waiting": 0,
            "factor": _factor(state, state.get("at", 0.0)),
            "used": {d: state.get(f"slot_used_{d}", 0) for d in limits},
            "limits": limits,
        }
    )
