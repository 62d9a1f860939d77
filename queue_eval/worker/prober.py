"""Lifts a hold once the judge serves again: one worker at a time asks it one small question."""

import logging
from itertools import count

from queue_eval.core import objects
from queue_eval.core.ending import Ending
from queue_eval.core.meter import CaseMeter
from queue_eval.core.record import Record
from queue_eval.ports.clock import Now
from queue_eval.ports.judge_error import JudgeError
from queue_eval.ports.queue import Steering
from queue_eval.ports.scorer import Scorer
from queue_eval.ports.store import Store
from queue_eval.worker.case_executor import JUDGE_HOLD

log = logging.getLogger("queue_eval.worker")


class Prober:
    def __init__(
        self, *, run_id: str, worker: str, steering: Steering, store: Store, scorer: Scorer, interval_s: float, now: Now
    ) -> None:
        self._run_id = run_id
        self._worker = worker
        self._steering = steering
        self._store = store
        self._scorer = scorer
        self._interval_s = interval_s
        self._now = now
        self._serial = count(1)

    async def try_to_lift(self, hold: str) -> None:
        if not hold.startswith(JUDGE_HOLD) or not await self._steering.elect("prober", self._interval_s):
            return
        meter, started_at = CaseMeter(self._now), self._now()
        try:
            await self._scorer.probe(meter)
        except JudgeError as error:
            log.warning("run still held; the judge serves no call", extra={"event": "held", "reason": error.public})
        else:
            log.warning("hold lifted; the judge serves again", extra={"event": "hold_lifted"})
            await self._steering.hold(None)
        finally:
            await self._note(meter, started_at)

    async def _note(self, meter: CaseMeter, started_at: float) -> None:
        if not meter.usage.spent:
            return
        execution = f"{self._worker}-{next(self._serial)}"
        record = Record(
            run_id=self._run_id,
            case_id="",
            ending=Ending.OVERHEAD,
            execution=execution,
            delivery=0,
            worker=self._worker,
            started_at=started_at,
            ended_at=self._now(),
            usage=meter.usage,
            reason="probe of a held run",
        )
        await self._store.create(objects.execution("_probe", execution, Ending.OVERHEAD), record.to_json())
