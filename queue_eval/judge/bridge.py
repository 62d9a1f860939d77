"""What DeepEval's metrics take for their judge model."""

import asyncio
from types import SimpleNamespace
from typing import Any

from deepeval.models import DeepEvalBaseLLM
from pydantic import BaseModel

from queue_eval.core.errors import QueueEvalError
from queue_eval.core.media import without_marks
from queue_eval.core.meter import UsageMeter
from queue_eval.judge.calls import JudgeCalls, NoLogprobsError
from queue_eval.ports.judge import Answer
from queue_eval.ports.judge_error import JudgeError


class ScoreAnswer(BaseModel):
    """What GEval's prompts ask for."""

    reason: Any = None
    score: int | float


class CalledWithinLoopError(RuntimeError):
    """A metric has called its model without awaiting it, in the thread that must bring the answer."""


class MetricEndedError(RuntimeError):
    """A metric that has ended, or was cancelled, has left a thread or a task that calls the model."""


class BridgeModel(DeepEvalBaseLLM):  # type: ignore[misc]  # deepeval has no type information
    """One for each metric of each case: it carries that metric's meter, and the error that ended it."""

    def __init__(self, calls: JudgeCalls, meter: UsageMeter, name: str) -> None:
        # not super().__init__: it would load a model
        self.name = name
        self.model = self
        self._calls = calls
        self._meter = meter
        self._loop = _running_loop()
        self.failure: JudgeError | QueueEvalError | None = None
        self._has_ended = False

    def end(self) -> None:
        """Refuse calls from now on: what they cost would stand in no record."""
        self._has_ended = True

    def load_model(self, *_: Any, **__: Any) -> "BridgeModel":
        return self

    def get_model_name(self, *_: Any, **__: Any) -> str:
        return self.name

    def generate(self, prompt: str, schema: type[BaseModel] | None = None, **_: Any) -> BaseModel | str:
        """For metrics that do not await: from another thread only, since in the loop's own it would wait for itself."""
        if self._loop is None or _running_loop() is self._loop:
            raise CalledWithinLoopError
        return asyncio.run_coroutine_threadsafe(self._ask(prompt, schema), self._loop).result()

    async def a_generate(self, prompt: str, schema: type[BaseModel] | None = None, **_: Any) -> BaseModel | str:
        if self._loop is None or _running_loop() is self._loop:
            return await self._ask(prompt, schema)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._ask(prompt, schema), self._loop))

    async def a_generate_raw_response(self, prompt: str, top_logprobs: int = 5, **_: Any) -> tuple[Any, None]:
        """Return what GEval weighs its score by, in the shape of OpenAI's client.

        NoLogprobsError, which is an AttributeError, where the judge returns no logprobs.
        """
        if not self._calls.tells_logprobs:
            raise NoLogprobsError("the judge returns no logprobs")
        asking = self._weighed(prompt, top_logprobs)
        if self._loop is None or _running_loop() is self._loop:
            return await asking, None
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asking, self._loop)), None

    def generate_raw_response(self, prompt: str, top_logprobs: int = 5, **_: Any) -> tuple[Any, None]:
        """As `generate`, from another thread."""
        if not self._calls.tells_logprobs:
            raise NoLogprobsError("the judge returns no logprobs")
        if self._loop is None or _running_loop() is self._loop:
            raise CalledWithinLoopError
        return asyncio.run_coroutine_threadsafe(self._weighed(prompt, top_logprobs), self._loop).result(), None

    async def _weighed(self, prompt: str, top_logprobs: int) -> Any:
        self._refuse_when_ended()
        try:
            answer, fits = await self._calls.ask_weighed(
                without_marks(str(prompt)), ScoreAnswer, top_logprobs, self._meter
            )
        except (JudgeError, QueueEvalError) as error:
            self.failure = error
            raise
        return _completion(answer, fits)

    async def _ask(self, prompt: str, schema: type[BaseModel] | None) -> BaseModel | str:
        self._refuse_when_ended()
        try:
            return await self._calls.ask(without_marks(str(prompt)), schema, self._meter)
        except (JudgeError, QueueEvalError) as error:
            self.failure = error
            raise

    def _refuse_when_ended(self) -> None:
        if self._has_ended:
            raise MetricEndedError("the metric has ended")

    async def a_generate_with_schema(
        self, prompt: str, *_: Any, schema: type[BaseModel] | None = None, **__: Any
    ) -> BaseModel | str:
        # DeepEval's own would call a second time after any TypeError
        return await self.a_generate(prompt, schema=schema)


def _completion(answer: Answer, fits: BaseModel) -> Any:
    """With the JSON alone for text: DeepEval reads less than `read_answer` does."""
    tokens = [
        SimpleNamespace(
            token=choice.token,
            logprob=choice.logprob,
            top_logprobs=[SimpleNamespace(token=token, logprob=logprob) for token, logprob in choice.top],
        )
        for choice in answer.tokens or ()
    ]
    message = SimpleNamespace(content=fits.model_dump_json())
    return SimpleNamespace(choices=[SimpleNamespace(message=message, logprobs=SimpleNamespace(content=tokens))])


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
