"""The producer's side of the queue."""

from collections.abc import Callable, Sequence

from queue_eval.core.run import RunState
from queue_eval.ports.queue import Entry
from queue_eval.queue.connection import as_written
from queue_eval.queue.keys import RunKeys
from queue_eval.queue.lua.signatures import CaseFields, QueueScripts
from queue_eval.queue.rq_job import packed, unmarked


class RedisEnqueueing:
    def __init__(self, scripts: QueueScripts, keys: RunKeys, *, new_epoch: Callable[[], str]) -> None:
        self._scripts = scripts
        self._keys = keys
        self._new_epoch = new_epoch

    async def open(self, manifest_identity: str) -> tuple[str, RunState]:
        identity, state = await self._scripts.open(manifest_identity, self._new_epoch())
        with as_written(self._keys.run_id):
            return identity.decode(), RunState(state.decode())

    async def enqueue(self, entries: Sequence[Entry]) -> int:
        return await self._scripts.enqueue(self._keys.queue, _fields(entries))

    async def adopt(self, entries: Sequence[Entry], *, dead: bool) -> int:
        return await self._scripts.adopt(self._keys.queue, "dead" if dead else "scored", _fields(entries))

    async def seal(self, total: int) -> RunState:
        state = await self._scripts.seal(total)
        with as_written(self._keys.run_id):
            return RunState(state.decode())

    async def reopen(self, entries: Sequence[Entry]) -> int:
        return await self._scripts.reopen(_fields(entries))

    async def retry_dead(self) -> int:
        revived = 0
        while True:
            looked_at, some = await self._scripts.retry()
            if not looked_at:
                return revived
            revived += some


def _fields(entries: Sequence[Entry]) -> list[CaseFields]:
    return [
        CaseFields(
            case_id=entry.case_id,
            data=packed(entry.payload),
            size_bytes=entry.size_bytes,
            description=unmarked(entry.description),
            earlier=entry.earlier,
        )
        for entry in entries
    ]
