"""Asks once whether the judge serves at all, for all cases of a worker that fail at the same time."""

import asyncio

from queue_eval.core.attempt import ErrorClass
from queue_eval.core.meter import CaseMeter
from queue_eval.ports.clock import Now
from queue_eval.ports.judge_error import JudgeError
from queue_eval.ports.scorer import Scorer

HOLDS_S = 2.0  # what was found out holds for the cases that fail then


class JudgeCheck:
    def __init__(self, scorer: Scorer, now: Now) -> None:
        self._scorer = scorer
        self._now = now
        self._asking = asyncio.Lock()
        self._found_down: JudgeError | None = None
        self._found_down_until = 0.0

    async def must_serve(self, meter: CaseMeter) -> None:
        """Send one small question. JudgeError of class RUN_FATAL when no call can succeed.

        The call counts on the meter of the case that sent it.
        """
        async with self._asking:
            if not self._scorer.judge_suspected_down:
                return  # another case's question, or call, was answered since
            if self._found_down and self._now() < self._found_down_until:
                raise _serves_none(self._found_down)
            try:
                await self._scorer.probe(meter)
            except JudgeError as error:
                self._found_down, self._found_down_until = error, self._now() + HOLDS_S
                raise _serves_none(error) from None


def _serves_none(error: JudgeError) -> JudgeError:
    return JudgeError(f"the judge serves no call: {error}", ErrorClass.RUN_FATAL, quoted=error.quoted)
