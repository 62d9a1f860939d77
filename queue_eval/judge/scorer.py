"""Applies the metrics of a run to a case. DeepEval scores; it does not run."""

import asyncio
from typing import Any, TypeGuard

from deepeval.errors import MissingTestCaseParamsError
from pydantic import BaseModel

from queue_eval.core.attempt import ErrorClass
from queue_eval.core.case import Case
from queue_eval.core.errors import QueueEvalError
from queue_eval.core.meter import CaseMeter, UsageMeter
from queue_eval.core.metric_spec import MetricSpec
from queue_eval.core.record import MetricResult
from queue_eval.judge.bridge import BridgeModel
from queue_eval.judge.calls import JudgeCalls
from queue_eval.judge.in_words import in_words
from queue_eval.judge.measured import Measured, MetricError
from queue_eval.judge.measuring import Measuring
from queue_eval.judge.metrics import built
from queue_eval.judge.secrets import Secrets
from queue_eval.judge.test_cases import for_metric, test_case
from queue_eval.ports.clock import Now
from queue_eval.ports.judge_error import JudgeError


class ReadyAnswer(BaseModel):
    """What the pre-flight call asks for."""

    ready: bool


PROBE_PROMPT = 'Answer with this JSON object and nothing else: {"ready": true}'


class DeepEvalScorer:
    def __init__(
        self,
        specs: list[MetricSpec],
        calls: JudgeCalls,
        *,
        model_name: str,
        case_timeout_s: float,
        secrets: Secrets,
        now: Now,
    ) -> None:
        """`secrets`: what a judge may repeat in a way that only the metric's reading of it brings to light."""
        self._specs = specs
        self._calls = calls
        self._model_name = model_name
        self._case_timeout_s = case_timeout_s
        self._secrets = secrets
        self._now = now
        self._measuring = Measuring()

    @property
    def waiting(self) -> int:
        return self._calls.waiting

    @property
    def calls_ended(self) -> int:
        return self._calls.ended

    @property
    def judge_suspected_down(self) -> bool:
        return self._calls.health.failures_in_a_row > 0

    async def score(self, case: Case, *, skip: frozenset[str], meter: CaseMeter) -> tuple[MetricResult, ...]:
        specs = [spec for spec in self._specs if spec.name not in skip]
        built_case = test_case(case)
        if isinstance(built_case, str):
            return tuple(MetricResult(name=s.name, threshold=s.reported_threshold, error=built_case) for s in specs)
        meters = [meter.metric() for _ in specs]
        tasks = [asyncio.create_task(self._metric(spec, built_case, m)) for spec, m in zip(specs, meters, strict=True)]
        try:
            await self._until_done(tasks, meter)
        finally:
            for task in tasks:
                task.cancel()
            try:
                await asyncio.gather(*tasks, return_exceptions=True)
            finally:
                await self._calls.settled(meter)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()):
                raise error
        late = f"not done within the case timeout of {self._case_timeout_s:g} s"
        return tuple(
            (
                MetricResult(name=s.name, threshold=s.reported_threshold, error=late, retriable=True, usage=m.usage)
                if t.cancelled()
                else t.result().model_copy(update={"usage": m.usage})
            )
            for s, m, t in zip(specs, meters, tasks, strict=True)
        )

    async def _until_done(self, tasks: "list[asyncio.Task[MetricResult]]", meter: CaseMeter) -> None:
        """Returns when all are done, when one of them ended the run, or when the case's time is over.

        Its clock stands still while one of its calls waits for the limiter.
        """
        pending, started = set(tasks), self._now()
        while pending:
            left_s = self._case_timeout_s - (self._now() - started - meter.blocked.total_s)
            if left_s <= 0:
                return
            done, pending = await asyncio.wait(pending, timeout=left_s, return_when=asyncio.FIRST_EXCEPTION)
            if any(not task.cancelled() and task.exception() for task in done):
                return

    async def _metric(self, spec: MetricSpec, built_case: Any, meter: UsageMeter) -> MetricResult:
        """A score or an error.

        Raises only what is no case's fault: JudgeError of class RUN_FATAL, and trouble of the limiter.
        """
        started = self._now()
        measured = await self._measured(spec, built_case, meter)
        if _refuses_all(measured):
            await self._ask_neutrally(measured, meter.case)
            # the judge may serve again only since a moment: the case is to blame when it is refused once more
            measured = await self._measured(spec, built_case, meter)
            if _refuses_all(measured):
                await self._ask_neutrally(measured, meter.case)
                measured = JudgeError(
                    f"the judge serves others and refuses this case: {measured}", ErrorClass.CASE_FATAL
                )
        duration_s = self._now() - started
        if isinstance(measured, Exception):
            return MetricResult(
                name=spec.name,
                threshold=spec.reported_threshold,
                error=self._secrets.without_known(str(measured))[:2000],
                retriable=isinstance(measured, JudgeError) and measured.kind is ErrorClass.RETRY,
                duration_s=duration_s,
                usage=meter.usage,
            )
        result = MetricResult(
            name=spec.name,
            threshold=measured.threshold,
            score=measured.score,
            passed=measured.passed,
            reason=self._secrets.without_known(measured.reason)[:4000] if measured.reason else None,
            duration_s=duration_s,
            usage=meter.usage,
        )
        meter.case.finished.append(result)
        return result

    async def _measured(self, spec: MetricSpec, built_case: Any, meter: UsageMeter) -> Measured | Exception:
        """What the metric found, or the exception that it ended with."""
        model = BridgeModel(self._calls, meter, self._model_name)
        try:
            metric = built(spec, model)
            await self._measuring.measure(metric, for_metric(built_case, metric))
            return Measured.by(metric, spec)
        except asyncio.CancelledError:
            raise
        except MissingTestCaseParamsError as error:
            return MetricError(f"the case lacks fields: {error}")
        except (Exception, SystemExit) as error:  # a metric's sys.exit must not become a worker's exit code
            failure = error if isinstance(error, JudgeError) else model.failure
            if isinstance(failure, QueueEvalError):
                raise failure from error
            if failure:
                return failure
            return (
                error if isinstance(error, MetricError) else MetricError(f"{type(error).__name__}: {in_words(error)}")
            )
        finally:
            model.end()

    async def _ask_neutrally(self, failure: JudgeError, meter: CaseMeter) -> None:
        """Distinguish an error that all cases would meet from one that this case provokes: a small neutral question
        decides.

        Raises the failure when the judge refuses that too.

        """
        try:
            await self._calls.ask(PROBE_PROMPT, ReadyAnswer, meter.metric())
        except JudgeError:
            raise failure from None

    async def probe(self, meter: CaseMeter) -> None:
        try:
            await self._calls.ask(PROBE_PROMPT, ReadyAnswer, meter.metric())
        finally:
            await self._calls.settled(meter)

    async def close(self) -> None:
        await self._calls.close()


def _refuses_all(measured: Measured | Exception) -> TypeGuard[JudgeError]:
    return isinstance(measured, JudgeError) and measured.kind is ErrorClass.RUN_FATAL
