"""A judge that gives prepared answers in order, and keeps the prompts."""

from collections.abc import Callable
from typing import Any

from queue_eval.ports.judge import Answer
from queue_eval.ports.judge_error import JudgeError

Step = str | Answer | JudgeError | Callable[[str], str]


class ScriptedJudge:
    """The last step repeats."""

    def __init__(self, *steps: Step) -> None:
        self._steps = list(steps)
        self.prompts: list[str] = []
        self.closed = False

    async def ask(self, prompt: str, schema: type[Any] | None) -> Answer:
        self.prompts.append(prompt)
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        if isinstance(step, JudgeError):
            raise step
        if isinstance(step, Answer):
            return step
        text = step(prompt) if callable(step) else step
        return Answer(text=text, input_tokens=len(prompt) // 4, output_tokens=len(text) // 4)

    async def close(self) -> None:
        self.closed = True
