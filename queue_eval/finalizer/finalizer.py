"""From stored records to a published report and a verdict."""

import json
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Protocol

from queue_eval.core import objects
from queue_eval.core.case import Case, unpacked_chunk
from queue_eval.core.ending import Ending
from queue_eval.core.errors import DataError
from queue_eval.core.gate import judge_gate
from queue_eval.core.limiter_stats import slots_of
from queue_eval.core.manifest import Manifest
from queue_eval.core.record import Record
from queue_eval.core.report import Report, build_report
from queue_eval.core.summary import Tally
from queue_eval.ports.store import Store


class ReportWriter(Protocol):
    """One form of the report, written while the records stream by."""

    name: str  # of the object

    def add(self, case: Case, record: Record | None) -> None:
        """In the order of the dataset; None for a case without an outcome."""
        ...

    def finish(self, report: Report) -> Path: ...


Writers = Callable[[Path], Sequence[ReportWriter]]


class Finalizer:
    def __init__(self, store: Store, *, writers: Writers) -> None:
        self._store = store
        self._writers = writers

    async def finalize(self, manifest: Manifest) -> Report:
        """Reads only the store, so it also reports a run that was never drained."""
        tally = Tally({spec.name: spec.reported_threshold for spec in manifest.settings.specs})
        names = frozenset(tally.metrics)
        durations: dict[str, float] = {}
        with tempfile.TemporaryDirectory(prefix="queue-eval-report-") as folder:
            writers = self._writers(Path(folder))
            spent = await self._executions()
            async for case, record in self._outcomes(manifest, spent):
                if record:
                    _check_metrics(record, names, manifest.run_id)
                    tally.add_outcome(record)
                    durations[case.case_id] = round(record.busy_s, 3)
                for writer in writers:
                    writer.add(case, record)
            spent.add_to(tally)
            figures = {name: metric.figures() for name, metric in tally.metrics.items()}
            gate = judge_gate(
                manifest.settings.gate.rules,
                figures,
                cases=manifest.dataset.cases,
                scored=tally.scored,
                dead=tally.dead,
                is_aborted=await self._store.get(objects.ABORTED) is not None,
            )
            report = build_report(manifest, tally, gate, slots_of(await self._store.get(objects.LIMITER)))
            for writer in writers:
                await self._store.put(writer.name, writer.finish(report))
        await self._store.put(objects.DURATIONS, json.dumps(durations, separators=(",", ":")).encode())
        # last: where report.json is, the rest is beside it
        await self._store.put(objects.REPORT, (report.model_dump_json(indent=2) + "\n").encode())
        return report

    async def _outcomes(self, manifest: Manifest, spent: "_Spent") -> AsyncIterator[tuple[Case, Record | None]]:
        for index in range(manifest.dataset.chunks):
            name = objects.chunk(manifest.dataset.sha256, index)
            data = await self._store.get(name)
            if data is None:
                raise DataError(f"run {manifest.run_id!r}: {name} is missing from the store")
            cases = unpacked_chunk(name, data)
            results = await self._results([case.case_id for case in cases], spent)
            for case in cases:
                yield case, results.get(case.case_id) or spent.dead.pop(case.case_id, None)

    async def _results(self, case_ids: list[str], spent: "_Spent") -> dict[str, Record]:
        """The accepted result of each case that has one. Results that were opened again are only cost."""
        accepted: dict[str, Record] = {}
        number = 0
        while case_ids:
            number += 1
            stored = await self._store.get_many([objects.result(case_id, number) for case_id in case_ids])
            found = [Record.result(data, of=case_id) for case_id, data in zip(case_ids, stored, strict=True)]
            case_ids = []
            for record in filter(None, found):
                if objects.revocation(record.case_id, record.execution) in spent.revoked:
                    spent.opened.append(record)
                    case_ids.append(record.case_id)
                else:
                    accepted[record.case_id] = record
        return accepted

    async def _executions(self) -> "_Spent":
        spent = _Spent({name async for name in self._store.names(objects.REVOKED)})
        names = [name async for name in self._store.names(objects.EXECUTIONS)]
        for start in range(0, len(names), 500):
            batch = names[start : start + 500]
            for name, data in zip(batch, await self._store.get_many(batch), strict=True):
                if record := Record.whole(data, of=objects.case_of_execution(name)):
                    spent.add(record)
        return spent


def _check_metrics(record: Record, names: frozenset[str], run_id: str) -> None:
    if unknown := sorted({metric.name for metric in record.metrics} - names):
        raise DataError(
            f"run {run_id!r}: a result of case {record.case_id} has the metric {unknown[0]!a:.80}, which"
            f" {objects.MANIFEST} does not name; another hand has changed one of them: restore it, or start a new run"
        )


class _Spent:
    """Executions other than the accepted ones.

    The last dead letter of a case without a result is its outcome, unless it is revoked.
    """

    def __init__(self, revoked: set[str]) -> None:
        self.revoked = revoked
        self.dead: dict[str, Record] = {}
        self.opened: list[Record] = []  # results that were opened again
        self._others: list[Record] = []

    def add(self, record: Record) -> None:
        if record.ending is not Ending.DEAD or objects.revocation(record.case_id, record.execution) in self.revoked:
            self._others.append(record.without_texts)
            return
        before = self.dead.get(record.case_id)
        if before is None or (before.delivery, before.ended_at) < (record.delivery, record.ended_at):
            self.dead[record.case_id], record = record, before or record
            if before is None:
                return
        self._others.append(record.without_texts)

    def add_to(self, tally: Tally) -> None:
        """After the outcomes were taken out of `dead`: what is left there was outlived by a result, and only cost."""
        for record in (*self._others, *self.opened, *self.dead.values()):
            tally.add_spent(record)
