"""A run's progress, from one look at it."""

from dataclasses import dataclass

from queue_eval.core.price import Price
from queue_eval.core.run import PASSED, SCORED, RunStats

MOST_METRICS = 3  # in a line
MOST_CHARACTERS = 30  # of a name


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    done: int
    total: int
    dead: int
    in_flight: int
    waiting_for_limiter: int
    workers: int
    pass_rates: dict[str, float]  # of each metric's scores so far
    judge_calls: int
    retries_429: int
    tokens: int
    cost_usd: float | None
    eta_s: float | None
    hold: str | None

    @classmethod
    def of(cls, stats: RunStats, *, elapsed_s: float, done_before: int, price: Price | None) -> "Progress":
        """`done_before`: cases that were terminal when the clock was started."""
        counters = stats.counters
        fresh = stats.terminal - done_before
        left = stats.known - stats.terminal
        input_tokens, output_tokens = counters.get("input_tokens", 0.0), counters.get("output_tokens", 0.0)
        return cls(
            done=stats.terminal,
            total=stats.known,
            dead=stats.dead,
            in_flight=stats.leased,
            waiting_for_limiter=sum(w.waiting for w in stats.workers),
            workers=len(stats.workers),
            pass_rates={
                name.removeprefix(SCORED): counters.get(name.replace(SCORED, PASSED, 1), 0.0) / scored
                for name, scored in counters.items()
                if name.startswith(SCORED) and scored > 0
            },
            judge_calls=int(counters.get("judge_calls", 0)),
            retries_429=int(counters.get("retries_429", 0)),
            tokens=int(input_tokens + output_tokens),
            cost_usd=price.of_tokens(input_tokens, output_tokens) if price else None,
            eta_s=elapsed_s * left / fresh if fresh > 0 and not stats.hold else None,
            hold=stats.hold,
        )

    @property
    def line(self) -> str:
        parts = [f"{self.done}/{self.total} done"]
        if self.pass_rates:
            parts.append(_passing(self.pass_rates))
        if self.dead:
            parts.append(f"{self.dead} dead")
        parts.append(f"{self.in_flight} in flight on {self.workers} worker{'s' if self.workers != 1 else ''}")
        if self.waiting_for_limiter:
            parts.append(f"{self.waiting_for_limiter} calls wait for the limiter")
        parts.append(f"{self.judge_calls:,} judge calls")
        if self.retries_429:
            parts.append(f"rate-limited {self.retries_429:,} times")
        parts.append(f"{self.tokens:,} tokens" + (f" (${self.cost_usd:.4f})" if self.cost_usd is not None else ""))
        if self.hold:
            parts.append(f"HELD: {self.hold}")
        elif self.eta_s is not None and self.done < self.total:
            parts.append(f"ETA {_duration(self.eta_s)}")
        return " · ".join(parts)


def _passing(rates: dict[str, float]) -> str:
    """Return the share of scores that passed, of the metrics that pass least."""
    least = sorted(rates.items(), key=lambda one: one[1])[:MOST_METRICS]
    more = f" (of {len(rates)} metrics)" if len(rates) > MOST_METRICS else ""
    return ", ".join(f"{name[:MOST_CHARACTERS]} {rate:.0%}" for name, rate in least) + f" pass{more}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
