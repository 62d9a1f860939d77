"""The message by which Redis wakes a process when another one's request has released its call."""

import asyncio
from collections.abc import Callable

import redis.exceptions as errors
from redis.asyncio import Redis

from queue_eval.redis_faults import Fault, fault

AGAIN_AFTER_S = 2.0
SILENT_S = 15.0  # then the connection is asked; networks drop connections that are idle for minutes


class Wakes:
    """Subscribe on a connection of its own. Without that the limiter looks more often, and loses nothing."""

    def __init__(self, redis: Redis, channel: str, wake: Callable[[], None]) -> None:
        self._redis = redis
        self._channel = channel
        self._wake = wake
        self._task: asyncio.Task[None] | None = None
        self._has_ended = False
        self.listens = False

    def begin(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="limiter-wakes")

    async def _run(self) -> None:
        while not self._has_ended:
            try:
                await self._listen()
            except (errors.RedisError, OSError, TimeoutError) as error:
                if fault(error) is Fault.REFUSED:
                    return  # this Redis user may not subscribe
                self._wake()  # Redis may be away
            if not self._has_ended:
                await asyncio.sleep(AGAIN_AFTER_S)

    async def _listen(self) -> None:
        pubsub = self._redis.pubsub()
        is_asked = False
        try:
            await pubsub.subscribe(self._channel)
            while not self._has_ended:
                message = await pubsub.get_message(timeout=SILENT_S)
                if message is None:
                    if is_asked:
                        raise TimeoutError
                    await pubsub.ping()
                is_asked = message is None
                self.listens = self.listens or message is not None
                if message and message["type"] == "message":
                    self._wake()
        finally:
            self.listens = False
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    def end(self) -> None:
        # a cancellation can be lost inside the client: the flag ends it then
        self._has_ended = True
        if self._task:
            self._task.cancel()
