"""The limiter from outside: what it does, what it did, and its screws. Never takes part in it."""

import json
import logging
from typing import Any

from redis.asyncio import Redis

from queue_eval.core.bucket import PAUSE_COUNTED_S, recovered
from queue_eval.core.limiter_stats import SLOT_S, LaneSeen, LimiterStats, Slot, rows_read, utilisation
from queue_eval.core.limits import DIMENSIONS, Lane, Limits
from queue_eval.limiter.keys import LimiterKeys
from queue_eval.limiter.outage import SHARE
from queue_eval.limiter.pump import lane_fields, source

LANE_LIVE_S = 60.0
LAST_MINUTE_S = 60.0
KEEP_S = 86400

log = logging.getLogger("queue_eval.limiter")


class LimiterView:
    def __init__(self, redis: Redis, *, key: str) -> None:
        self._redis = redis
        self._keys = LimiterKeys(key)
        self._tune = redis.register_script(source("clock", "tune"))

    async def stats(self) -> LimiterStats | None:
        """None when nobody has used the limiter yet, or Redis lost it."""
        keys = self._keys
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hgetall(keys.state)
            pipe.zrange(keys.lanes, 0, -1, withscores=True)
            pipe.lrange(keys.timeline, -int(LAST_MINUTE_S / SLOT_S), -1)
            pipe.time()
            raw, lanes, rows, (seconds, micros) = await pipe.execute()
        state = {name.decode(): value.decode() for name, value in raw.items()}
        if "generation" not in state:
            return None
        now_ms = seconds * 1000 + micros / 1000
        seen = await self._lanes([(name.decode(), (now_ms - at) / 1000) for name, at in lanes])
        factor = _factor(state, now_ms)
        rate = {d: 60 * factor * float(state[f"rate_{d}"]) for d in DIMENSIONS if f"rate_{d}" in state}
        processes = int(float(state.get("processes", 0)))
        return LimiterStats(
            limits=_limits(state, "limit_"),
            headers=_limits(state, "header_"),
            rate=Limits(**rate),
            factor=factor,
            lanes=seen,
            waiting=sum(lane.waiting for lane in seen),
            released=int(float(state.get("released", 0)) - float(state.get("given_back", 0))),
            refused=int(float(state.get("refused", 0))),
            cuts=int(float(state.get("cuts", 0))),
            pauses=int(float(state.get("pauses", 0))),
            paused_s=max(0.0, (float(state.get("paused_until", 0)) - now_ms) / 1000),
            processes=processes,
            jitter_s=float(state.get("jitter_s", 0)),
            outage_share=Limits(**{d: SHARE * r / max(1, processes) for d, r in rate.items()}),
            utilisation=_utilisation(rows_read(rows), now_ms / 1000),
            in_flight=int(float(state.get("in_flight", 0))),
            most_in_flight=int(float(state["most"])) if "most" in state else None,
        )

    async def _lanes(self, found: list[tuple[str, float]]) -> tuple[LaneSeen, ...]:
        async with self._redis.pipeline(transaction=True) as pipe:
            for name, _ in found:
                pipe.hgetall(self._keys.lane(name))
                pipe.llen(self._keys.fifo(name))
            replies = await pipe.execute()
        seen = []
        for (name, ago_s), raw, waiting in zip(found, replies[::2], replies[1::2], strict=True):
            lane = {key.decode(): value.decode() for key, value in raw.items()}
            if ago_s <= LANE_LIVE_S:
                weight = float(lane.get("weight", 1))
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
        state = {name.decode(): value.decode() for name, value in raw.items()}
        if "slot" in state:
            slots.append(_under_way(state))
        return slots

    async def tune(self, lane: Lane, changes: dict[str, float | None]) -> Limits:
        """Changes limits (by dimension, per minute; None lifts one) or `weight` of a run, for everybody and every call that waits already.

        `lane` is what the run was configured with: workers that come later find the change, and keep it. The run's limits afterwards.
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


def _limits(fields: dict[str, str], prefix: str) -> Limits:
    return Limits(**{d: float(fields[prefix + d]) for d in DIMENSIONS if prefix + d in fields})


def _factor(state: dict[str, str], now_ms: float) -> float:
    if "cut_at" not in state:
        return 1.0
    from_ms = max(float(state["cut_at"]), float(state.get("paused_until", 0)) - PAUSE_COUNTED_S * 1000)
    return recovered(float(state["cut_from"]), float(state["cut_to"]), (now_ms - from_ms) / 1000)


def _utilisation(slots: list[Slot], now_s: float) -> float | None:
    recent = [slot for slot in slots if slot.at + slot.span_s > now_s - LAST_MINUTE_S]
    if not recent:
        return None
    # up to the beginning of the stretch that is still under way
    return utilisation(recent, max(now_s // SLOT_S * SLOT_S, recent[-1].at + SLOT_S) - recent[0].at)


def _under_way(state: dict[str, str]) -> Slot:
    return Slot(
        at=float(state["slot"]) * SLOT_S,
        released=int(float(state.get("slot_released", 0))),
        lanes=dict(json.loads(state.get("slot_lanes", "{}"))),
        refused=int(float(state.get("slot_refused", 0))),
        cuts=int(float(state.get("slot_cuts", 0))),
        paused_s=float(state.get("slot_paused_ms", 0)) / 1000,
        factor=_factor(state, float(state["at"])),
        used={d: float(state.get(f"slot_used_{d}", 0)) for d in DIMENSIONS if f"limit_{d}" in state},
        limits=_limits(state, "limit_").known,
    )
