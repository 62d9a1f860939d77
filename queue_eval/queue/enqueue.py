"""The producer's side of the queue."""

from collections.abc import Callable, Sequence

from queue_eval.core.run import RunState
from queue_eval.ports.queue import Entry
from queue_eval.queue.connection import as_written
from queue_eval.queue.keys import RunKeys
from queue_eval.queue.rq_job import packed, unmarked
from queue_eval.queue.scripts import RunScripts


class RedisEnqueueing:
    def __init__(self, scripts: RunScripts, keys: RunKeys, *, new_epoch: Callable[[], str]) -> None:
        self._scripts = scripts
        self._keys = keys
        self._new_epoch = new_epoch

    async def open(self, manifest_identity: str) -> tuple[str, RunState]:
        identity, state = await self._scripts.call("open", manifest_identity, self._new_epoch())
        with as_written(self._keys.run_id):
            return identity.decode(), RunState(state.decode())

    async def enqueue(self, entries: Sequence[Entry]) -> int:
        return int(await self._scripts.call("enqueue", self._keys.queue, *_fields(entries)))

    async def adopt(self, entries: Sequence[Entry], *, dead: bool) -> int:
        return int(await self._scripts.call("adopt", self._keys.queue, "dead" if dead else "scored", *_fields(entries)))

    async def seal(self, total: int) -> RunState:
        state = await self._scripts.call("seal", total)
        with as_written(self._keys.run_id):
            return RunState(state.decode())

    async def reopen(self, entries: Sequence[Entry]) -> int:
        return int(await self._scripts.call("reopen", *_fields(entries)))

    async def retry_dead(self) -> int:
        revived = 0
        while True:
            looked_at, some = await self._scripts.call("retry")
            if not looked_at:
                return revived
            revived += some


def _fields(entries: Sequence[Entry]) -> list[str | bytes | int]:
    return [
        field
        for e in entries
        for field in (e.case_id, packed(e.payload), e.size_bytes, unmarked(e.description), e.earlier)
    ]
