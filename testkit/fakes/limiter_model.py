"""The limiter's script in plain Python, with the clock as an argument: what the Lua is compared with, grant by grant."""

import math
from dataclasses import dataclass, field

from queue_eval.core.bucket import PAUSE_COUNTED_S, bucket_for, cut, recovered
from queue_eval.core.limits import DIMENSIONS, Charge, Lane

LANE_LIVE_MS = 60_000
SILENT_MS = 1000
INFINITE = float("inf")
GONE_MS = 10_000
MOST_PAUSE_MS, PLAIN_PAUSE_MS = 60_000, 1000
SHARE, SHARE_KEEP_MS, SHARE_SILENT_MS, SHARES_LOOK_MS = 0.9, 5_000, 700, 200


@dataclass(slots=True)
class _Lane:
    lane: Lane
    seen_ms: float = 0.0
    vtime: float = 0.0
    fifo: list[tuple[str, str, Charge]] = field(default_factory=list)


@dataclass(slots=True)
class _Level:
    burst: float
    rate_per_s: float
    level: float


@dataclass(slots=True)
class LimiterModel:
    at_ms: float = 0.0
    computed_ms: float = 0.0
    released: int = 0
    cut_serial: int = 0
    cuts: int = 0
    cut_at_ms: float | None = None
    cut_from: float = 1.0
    cut_to: float = 1.0
    paused_until_ms: float = 0.0
    vtime: float = 0.0
    window_s: float = 60.0  # of the lane whose step it is
    seen_ms: dict[str, float] = field(default_factory=dict)
    shares: dict[str, tuple[float, float]] = field(default_factory=dict)  # process → seen, promised
    shares_ms: float = 0.0  # when they were looked at
    silent: float = 0.0  # promised to processes that were silent then
    debt_since_ms: dict[str, float] = field(default_factory=dict)
    headers: dict[str, float] = field(default_factory=dict)
    lanes: dict[str, _Lane] = field(default_factory=dict)
    levels: dict[str, _Level] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=lambda: dict.fromkeys(DIMENSIONS, 0.0))

    def _factor(self, now_ms: float) -> float:
        if self.cut_at_ms is None:
            return 1.0
        from_ms = max(self.cut_at_ms, self.paused_until_ms - PAUSE_COUNTED_S * 1000)
        return recovered(self.cut_from, self.cut_to, (now_ms - from_ms) / 1000)

    def step(
        self,
        now_ms: float,
        *,
        process: str,
        lane: Lane,
        back: Charge,
        refused_serial: int | None,
        pause_ms: float,
        headers: dict[str, float],
        waiters: list[tuple[str, Charge]],
    ) -> list[str]:
        """`process|ticket` of what is released, in order. A process that was forgotten joins again by itself."""
        joins, self.window_s = process not in self.seen_ms, lane.counting.window_s
        self.seen_ms[process] = now_ms
        self.lanes.setdefault(lane.name, _Lane(lane)).seen_ms = now_ms
        if self.at_ms and now_ms - self.at_ms > SHARE_SILENT_MS + 1:
            unseen_ms = now_ms - self.at_ms - SHARE_SILENT_MS - 1
            self.shares = {p: (seen + unseen_ms, share) for p, (seen, share) in self.shares.items()}
        self._refill(now_ms)
        self._promise(now_ms, process)
        self._settle(back)
        if refused_serial is not None:
            explained = any(limit < self.limits.get(d, INFINITE) for d, limit in headers.items())
            self._refuse(now_ms, refused_serial, min(pause_ms, MOST_PAUSE_MS), explained=explained)
        dirty = joins or any(self.headers.get(d) != limit for d, limit in headers.items())
        self.headers |= headers
        dirty = self._enqueue(process, self.lanes[lane.name], waiters) or dirty
        if dirty or now_ms - self.computed_ms >= 1000:
            self._compute(now_ms)
        return self._release(now_ms, process)

    def _refill(self, now_ms: float) -> None:
        elapsed_s = max(0.0, now_ms - self.at_ms) / 1000
        for level in self.levels.values():
            level.level = min(
                level.burst,
                level.level + elapsed_s * level.rate_per_s * self._factor(now_ms) * (1 - self.silent / SHARE),
            )
        self.at_ms = now_ms

    def _promise(self, now_ms: float, process: str) -> None:
        seen_ms, before = self.shares.get(process, (-INFINITE, 0.0))
        self.shares[process] = now_ms, before
        if now_ms - seen_ms > SHARE_SILENT_MS or now_ms - self.shares_ms >= SHARES_LOOK_MS:
            self.shares_ms = now_ms
            self.shares = {p: at for p, at in self.shares.items() if now_ms - at[0] <= SHARE_KEEP_MS}
            self.silent = sum(share for seen, share in self.shares.values() if now_ms - seen > SHARE_SILENT_MS)
        left = SHARE - sum(share for p, (_, share) in self.shares.items() if p != process)
        sharers = self._most_sharers()
        if len(self.shares) <= sharers:
            share = max(0.0, min(SHARE / len(self.shares), left))
        else:
            share = SHARE / sharers if SHARE / sharers <= left + 1e-9 else 0.0
        self.shares[process] = now_ms, math.floor(1e6 * share) / 1e6

    def _most_sharers(self) -> float:
        holds = [self.limits[d] * self.window_s / 60 / max(1.0, self.largest[d]) for d in self.levels]
        return max(1, math.floor((1 - SHARE) * min(holds) + 1e-9)) if holds else INFINITE

    def _settle(self, back: Charge) -> None:
        for d, level in self.levels.items():
            level.level += back.amounts[d]

    def _refuse(self, now_ms: float, serial: int, pause_ms: float, *, explained: bool) -> None:
        if serial > self.cut_serial:
            self.cut_serial = self.released
            if not explained:
                self.cut_from = self._factor(now_ms)
                self.cut_to, self.cut_at_ms = cut(self.cut_from), now_ms
                self.cuts += 1
            pause_ms = pause_ms or PLAIN_PAUSE_MS
        self.paused_until_ms = max(min(self.paused_until_ms, now_ms + MOST_PAUSE_MS), now_ms + pause_ms)

    def _enqueue(self, process: str, lane: _Lane, waiters: list[tuple[str, Charge]]) -> bool:
        dirty = False
        if waiters and not lane.fifo:
            lane.vtime = max(lane.vtime, self.vtime)
        for ticket, charge in waiters:
            lane.fifo.append((process, ticket, charge))
            for d, amount in charge.amounts.items():
                if amount > self.largest[d]:
                    self.largest[d] = amount
                    dirty = dirty or (d in self.levels and amount > self.levels[d].burst)
        return dirty

    def _compute(self, now_ms: float) -> None:
        self.computed_ms = now_ms
        self.seen_ms = {p: seen for p, seen in self.seen_ms.items() if now_ms - seen <= GONE_MS}
        live = [lane.lane for lane in self.lanes.values() if now_ms - lane.seen_ms <= LANE_LIVE_MS]
        before, self.levels, self.limits = self.levels, {}, {}
        for d in DIMENSIONS:
            named = [
                (min(lane.limits.known.get(d, INFINITE), self.headers.get(d, INFINITE)), lane.counting) for lane in live
            ]
            buckets = [
                bucket_for(d, limit, counting, jitter_s=0.0, largest=self.largest[d])
                for limit, counting in named
                if limit < INFINITE
            ]
            if buckets:
                self.limits[d] = min(limit for limit, _ in named)
                burst = min(bucket.burst for bucket in buckets)
                was = before.get(d, _Level(burst, 0.0, 0.0))
                level = min(was.level, burst + max(0.0, was.level - was.burst))
                self.levels[d] = _Level(burst, min(bucket.refill_per_s for bucket in buckets), level)

    def _affordable(self, charge: Charge) -> bool:
        return all(min(charge.amounts[d], lv.burst) - lv.level <= 1e-6 for d, lv in self.levels.items())

    def _release(self, now_ms: float, process: str) -> list[str]:
        granted = []
        while now_ms >= self.paused_until_ms:
            for lane in self.lanes.values():
                while lane.fifo and not self._listens(lane.fifo[0][0], process, now_ms):
                    lane.fifo.pop(0)
            waiting = [lane for lane in self.lanes.values() if lane.fifo]
            if not waiting:
                break
            lane = min(waiting, key=lambda lane: (lane.vtime, lane.lane.name))
            owner, ticket, charge = lane.fifo[0]
            if not self._affordable(charge):
                break
            lane.fifo.pop(0)
            took_s = 0.0
            for d, level in self.levels.items():
                level.level -= charge.amounts[d]
                took_s = max(took_s, charge.amounts[d] / level.rate_per_s)
            self.released += 1
            granted.append(f"{owner}|{ticket}")
            self.vtime = max(self.vtime, lane.vtime)
            lane.vtime += min(took_s or 0.001, 60.0) / lane.lane.weight
        for capped in self.levels.values():
            capped.level = min(capped.level, capped.burst)
        self._forgive(now_ms)
        return granted

    def _forgive(self, now_ms: float) -> None:
        """Debt beyond a window's worth that is older than the window."""
        deep = {d: self.limits[d] * self.window_s / 60 for d in self.levels}
        deep = {d: most for d, most in deep.items() if self.levels[d].level < -most}
        self.debt_since_ms = {d: self.debt_since_ms.get(d, now_ms) for d in deep}
        for d, most in deep.items():
            if now_ms - self.debt_since_ms[d] >= self.window_s * 1000:
                self.levels[d].level = -most
                del self.debt_since_ms[d]

    def _listens(self, owner: str, process: str, now_ms: float) -> bool:
        if owner == process:
            return True
        if owner in self.seen_ms and now_ms - self.seen_ms[owner] > SILENT_MS:
            del self.seen_ms[owner]
        return owner in self.seen_ms
