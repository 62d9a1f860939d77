"""The broker and the task that `taskiq worker` serves."""

import os
from pathlib import Path
from typing import Any

from taskiq_redis import RedisStreamBroker

from loadtest.peers.judging import judge, rows

# imported where cases are sent too, which happens over a broker of their own
broker = RedisStreamBroker(url=os.environ.get("PEER_REDIS_URL") or "redis://127.0.0.1")


@broker.task  # type: ignore[untyped-decorator]  # taskiq is not installed where types are checked
async def judge_case(row: dict[str, Any]) -> None:
    await judge(row)


async def enqueue(redis_url: str, folder: Path) -> None:
    sending = RedisStreamBroker(url=redis_url)
    await sending.startup()
    for row in rows(folder):
        await judge_case.kicker().with_broker(sending).kiq(row)
    await sending.shutdown()
