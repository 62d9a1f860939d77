"""What DeepEval's metrics take for their judge model."""

from typing import Any

from deepeval.models import DeepEvalBaseLLM
from pydantic import BaseModel

from queue_eval.core.errors import QueueEvalError
from queue_eval.core.meter import UsageMeter
from queue_eval.judge.calls import JudgeCalls
from queue_eval.ports import JudgeError


class BridgeModel(DeepEvalBaseLLM):  # type: ignore[misc]  # deepeval has no type information
    """One for each metric of each case: it carries that metric's meter, and the error that ended it."""

    def __init__(self, calls: JudgeCalls, meter: UsageMeter, name: str) -> None:
        # not super().__init__: it would load a model
        self.name = name
        self.model = self
        self._calls = calls
        self._meter = meter
        self.failure: JudgeError | QueueEvalError | None = None

    def load_model(self, *_: Any, **__: Any) -> "BridgeModel":
        return self

    def get_model_name(self, *_: Any, **__: Any) -> str:
        return self.name

    def generate(self, *_: Any, **__: Any) -> str:
        raise RuntimeError("metrics run asynchronously here: give the metric async_mode true and call a_generate")

    async def a_generate(self, prompt: str, schema: type[BaseModel] | None = None) -> BaseModel | str:
        try:
            return await self._calls.ask(str(prompt), schema, self._meter)
        except (JudgeError, QueueEvalError) as error:
            self.failure = error
            raise

    async def a_generate_with_schema(
        self, prompt: str, *_: Any, schema: type[BaseModel] | None = None, **__: Any
    ) -> BaseModel | str:
        # DeepEval's own would call a second time after any TypeError
        return await self.a_generate(prompt, schema=schema)
