"""The broker and the task that `taskiq worker` serves."""

import os
from pathlib import Path
from typing import Any

from taskiq_redis import RedisStreamBroker

from loadtest.peers.judging import judge, rows

IDLE_MS = 30_000  # after which a task that has not ended is another's; nothing renews it meanwhile
READ_AT_ONCE = 8  # messages: what waits for others to end is lost with its process for a while
LOCK_S = 5.0  # of a process that looks for such tasks; a killed process would hold it for good

# imported where cases are sent too, which happens over a broker of their own
broker = RedisStreamBroker(
    url=os.environ.get("PEER_REDIS_URL") or "redis://127.0.0.1",
    idle_timeout=IDLE_MS,
    unacknowledged_lock_timeout=LOCK_S,
    xread_count=READ_AT_ONCE,
)


@broker.task  # type: ignore[untyped-decorator]  # taskiq is not installed where types are checked
async def judge_case(row: dict[str, Any]) -> None:
    await judge(row)


async def enqueue(redis_url: str, folder: Path) -> None:
    sending = RedisStreamBroker(url=redis_url)
    await sending.startup()
    for row in rows(folder):
        await judge_case.kicker().with_broker(sending).kiq(row)
    await sending.shutdown()
