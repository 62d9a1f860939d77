"""The limiter of a judge account, as the processes that call the judge use it."""

import asyncio
import secrets
import time
from dataclasses import replace

from redis.asyncio import Redis

from queue_eval.core.settings.judge import JudgeSettings, LexicalJudge
from queue_eval.core.settings.limits import LimitSettings
from queue_eval.limiter.shared import SharedLimiter
from queue_eval.limiter.unlimited import Unlimited
from queue_eval.ports.limiter import Limiter
from queue_eval.wiring.limiter_views import limiter_key


def build_limiter(
    judge: JudgeSettings,
    limits: LimitSettings,
    redis: Redis | None,
    run_id: str,
    who: str,
    *,
    call_timeout_s: float,
) -> Limiter:
    alone = isinstance(judge, LexicalJudge) and not limits.per_minute.known
    lane = limits.lane(run_id)
    if redis is None or alone:
        return Unlimited(now=time.monotonic, sleep=asyncio.sleep)
    return SharedLimiter(
        redis,
        key=limiter_key(judge.model_dump()),
        process=f"{who}-{secrets.token_hex(3)}",
        lane=replace(lane, in_flight=replace(lane.in_flight, timeout_s=call_timeout_s)),
        adjusts=limits.settle == "adjust",
        now=time.monotonic,
        new_token=lambda: secrets.token_hex(8),
    )
