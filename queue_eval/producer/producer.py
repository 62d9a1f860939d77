"""Freezes the inputs of a run in the store and puts its cases into the queue."""

import gzip
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass

from queue_eval.core import objects
from queue_eval.core.case import Case, unpacked_chunk
from queue_eval.core.errors import DataError, RunAbortedError, RunConflictError
from queue_eval.core.manifest import DatasetFacts, Manifest, identity_of
from queue_eval.core.meter import CaseMeter
from queue_eval.core.run import RunState
from queue_eval.core.settings.metric import MetricSettings
from queue_eval.core.settings.run import RunSettings
from queue_eval.core.shard import Shard
from queue_eval.core.weight import case_weight
from queue_eval.ports.clock import Now
from queue_eval.ports.queue import Enqueueing, Entry
from queue_eval.ports.store import Store
from queue_eval.producer.checks import MissingFields, checked
from queue_eval.producer.history import History
from queue_eval.producer.overhead import store_overhead
from queue_eval.producer.spool import Spool

INLINE_BYTES = 16_384  # larger payloads travel by reference to the store
CHUNK_CASES = 500
CHUNK_BYTES = 4_000_000
ENQUEUE_AT_ONCE = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What only the judge knows."""

    metrics: tuple[MetricSettings, ...]  # with GEval's steps
    served_model: str | None
    is_weighed: bool | None = None  # see Manifest


Resolve = Callable[[CaseMeter], Awaitable[Resolved]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a run is made of, before the judge was asked anything."""

    run_id: str
    settings: RunSettings
    source: str
    selection: str
    metric_prompts_sha256: str
    commit_sha: str | None
    labels: dict[str, str]
    versions: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Produced:
    manifest: Manifest
    enqueued: int  # cases that are new in the queue
    stored: int  # cases that the store already has a result for
    dead: int
    state: RunState
    repeated: bool  # the manifest was there already


class Producer:
    def __init__(
        self,
        *,
        store: Store,
        queue: Enqueueing,
        missing_fields: MissingFields,
        earlier_busy_s: dict[str, float],
        now: Now,
    ) -> None:
        self._store = store
        self._queue = queue
        self._missing_fields = missing_fields
        self._earlier_busy_s = earlier_busy_s
        self._now = now

    async def produce(
        self, cases: Iterable[Case], inputs: Inputs, duplicates: Callable[[], int], resolve: Resolve
    ) -> Produced:
        """Safe to repeat at any point with the same inputs.

        RunConflictError when another manifest stands under the run id.

        `resolve` makes the pre-flight call; it is not called when the manifest exists.

        """
        with Spool() as spool:
            for case in checked(cases, self._missing_fields):
                self._append(spool, case, inputs.settings.judge_calls_per_case)
            if not len(spool):
                raise DataError(
                    f"{inputs.source}: no cases{f' ({inputs.selection})' if inputs.selection else ''}; a run needs at"
                    " least one"
                )
            facts = DatasetFacts(
                source=inputs.source,
                sha256=spool.sha256,
                cases=len(spool),
                duplicates=duplicates(),
                chunks=0,
                selection=inputs.selection,
            )
            identity = identity_of(inputs.settings, facts, inputs.metric_prompts_sha256)
            existing = await self.manifest(inputs.run_id)
            manifest = existing or await self._freeze(spool, facts, identity, inputs, resolve)
            if manifest.identity != identity:
                raise _conflict(manifest, facts, inputs)
            # also where another producer, or another hand, was faster
            if differing := manifest.differs_from(inputs.settings):
                raise DataError(
                    f"run {manifest.run_id!r}: {objects.MANIFEST} in the store was changed after it was written"
                    f" ({', '.join(differing)}); start a new run"
                )
            if existing and (changed := existing.operated_as(inputs.settings)) != existing:
                await self._store.put(objects.MANIFEST, changed.to_json())
                manifest = changed
            return await self._enqueue(spool, manifest, repeated=existing is not None)

    async def resume(self, manifest: Manifest, *, shard: Shard | None = None) -> Produced:
        """Enqueue what the store has no result for, of all cases or of a shard's. The cases come from the store too."""
        with Spool() as spool:
            position = 0
            async for case in self._frozen_cases(manifest):
                if shard is None or shard.holds(position):
                    self._append(spool, case, manifest.settings.judge_calls_per_case)
                position += 1
            return await self._enqueue(spool, manifest, repeated=True)

    async def manifest(self, run_id: str) -> Manifest | None:
        data = await self._store.get(objects.MANIFEST)
        return None if data is None else Manifest.from_json(data, run_id=run_id)

    def _append(self, spool: Spool, case: Case, judge_calls: int) -> None:
        spool.append(case, case_weight(case.fields, judge_calls=judge_calls), self._earlier_busy_s.get(case.case_id))

    async def _freeze(
        self, spool: Spool, facts: DatasetFacts, identity: str, inputs: Inputs, resolve: Resolve
    ) -> Manifest:
        meter, started_at = CaseMeter(self._now), self._now()
        try:
            resolved = await resolve(meter)
        finally:
            name = f"preflight-{int(started_at * 1000)}"
            await store_overhead(
                self._store, inputs.run_id, meter, name=name, started_at=started_at, ended_at=self._now()
            )
        chunks = 0
        for data in _chunks(spool.in_order()):
            await self._store.create(objects.chunk(facts.sha256, chunks), data)
            chunks += 1
        manifest = Manifest(
            run_id=inputs.run_id,
            identity=identity,
            created_at=started_at,
            settings=inputs.settings.model_copy(update={"metrics": resolved.metrics}),
            served_model=resolved.served_model,
            is_weighed=resolved.is_weighed,
            dataset=facts.model_copy(update={"chunks": chunks}),
            metric_prompts_sha256=inputs.metric_prompts_sha256,
            commit_sha=inputs.commit_sha,
            labels=inputs.labels,
            versions=inputs.versions,
        )
        if not await self._store.create(objects.MANIFEST, manifest.to_json()):
            # another producer was faster: its manifest counts, and the caller compares
            return await self.manifest(inputs.run_id) or manifest
        return manifest

    async def _enqueue(self, spool: Spool, manifest: Manifest, *, repeated: bool) -> Produced:
        # Redis may have forgotten the run, and with it that it was aborted
        if await self._store.get(objects.ABORTED):
            raise RunAbortedError(manifest.run_id)
        known, state = await self._queue.open(manifest.identity)
        if known != manifest.identity:
            raise RunConflictError(
                f"run {manifest.run_id!r}: Redis holds another run under this id; choose another --run-id, or another"
                " Redis"
            )
        if state is RunState.ABORTED:
            raise RunAbortedError(manifest.run_id)
        history = await History.of(self._store)
        enqueued = 0
        for batch in _batched(spool.heaviest_first(), ENQUEUE_AT_ONCE):
            enqueued += await self._enqueue_some(batch, history)
        state = await self._queue.seal(len(spool))
        return Produced(
            manifest=manifest,
            enqueued=enqueued,
            stored=len(history.scored),
            dead=history.dead,
            state=state,
            repeated=repeated,
        )

    async def _enqueue_some(self, batch: list[bytes], history: History) -> int:
        fresh: list[Entry] = []
        done: list[Entry] = []
        dead_before: list[Entry] = []
        for data in batch:
            case = Case.from_json(data)
            if case.case_id in history.scored:
                earlier = history.executions[case.case_id] + 1
                done.append(
                    Entry(case_id=case.case_id, payload=b"", size_bytes=0, description=case.case_id, earlier=earlier)
                )
                continue
            entry = await self._entry(case, data, history.executions[case.case_id])
            (dead_before if case.case_id in history.dead_letters else fresh).append(entry)
        reopened = [entry for entry in fresh if entry.case_id in history.reopened]
        enqueued = await self._queue.reopen(reopened) if reopened else 0
        enqueued += await self._queue.enqueue(fresh) if fresh else 0
        if done:
            await self._queue.adopt(done, dead=False)
        if dead_before:
            await self._queue.adopt(dead_before, dead=True)
        return enqueued

    async def _entry(self, case: Case, data: bytes, earlier: int) -> Entry:
        by_reference = len(data) > INLINE_BYTES
        if by_reference:
            await self._store.create(objects.payload(case.case_id), data)
        return Entry(
            case_id=case.case_id,
            payload=b"" if by_reference else data,
            size_bytes=len(data),
            description=f"case {case.case_id} from {case.place}",
            earlier=earlier,
        )

    async def _frozen_cases(self, manifest: Manifest) -> AsyncIterator[Case]:
        for index in range(manifest.dataset.chunks):
            name = objects.chunk(manifest.dataset.sha256, index)
            data = await self._store.get(name)
            if data is None:
                raise DataError(f"run {manifest.run_id!r}: {name} is missing from the store; start a new run")
            for case in unpacked_chunk(name, data):
                yield case


def _chunks(cases: Iterator[bytes]) -> Iterator[bytes]:
    """Gzipped JSON lines, the same bytes for the same cases."""
    held: list[bytes] = []
    size = 0
    for data in cases:
        held.append(data)
        size += len(data)
        if len(held) >= CHUNK_CASES or size >= CHUNK_BYTES:
            yield gzip.compress(b"\n".join(held) + b"\n", compresslevel=1, mtime=0)
            held, size = [], 0
    if held:
        yield gzip.compress(b"\n".join(held) + b"\n", compresslevel=1, mtime=0)


def _batched(items: Iterator[bytes], size: int) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _conflict(manifest: Manifest, facts: DatasetFacts, inputs: Inputs) -> RunConflictError:
    old = manifest.dataset
    what = (
        "other cases"
        if (old.sha256, old.selection) != (facts.sha256, facts.selection)
        else "other metrics, judge or gate"
    )
    command = f"queue-eval run --resume {inputs.run_id}"
    return RunConflictError(
        f"run {inputs.run_id!r} exists with {what}; choose another --run-id, or resume it as it is with {command}",
        command=command,
    )
