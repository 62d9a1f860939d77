"""Any DeepEval model by import path: its client is built once, its own retries are off, its calls pass our limiter."""

import asyncio
import importlib
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from deepeval.metrics.g_eval.utils import no_log_prob_support
from deepeval.models import DeepEvalBaseLLM
from pydantic import BaseModel

from queue_eval.core.attempt import ErrorClass
from queue_eval.core.errors import ConfigError
from queue_eval.judge.completion import read_completion
from queue_eval.judge.in_words import in_words
from queue_eval.judge.openai import MOST_LOGPROBS
from queue_eval.judge.refusal import refusal
from queue_eval.judge.secrets import Secrets
from queue_eval.judge.threads import awaited_in_thread, never_awaits
from queue_eval.ports.clock import Now
from queue_eval.ports.judge import Answer
from queue_eval.ports.judge_error import JudgeError, Trait


class ImportedModel:
    def __init__(self, path: str, params: dict[str, Any], secrets: Secrets, *, now: Now, weighs: bool = True) -> None:
        """`weighs`: return how probable an answer's tokens were, where the model does."""
        model_class = imported(path, DeepEvalBaseLLM)
        try:
            self._model = model_class(**_without_retries(model_class, params))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - other people's code; a chain could show a secret
            raise ConfigError(
                f"{path} cannot be built from {sorted(params)}: {type(error).__name__}: {secrets.blanked(str(error))}"
            ) from None
        self._secrets = secrets
        self._now = now
        has_logprobs = callable(getattr(self._model, "a_generate_raw_response", None)) and not no_log_prob_support(
            self._model
        )
        self.most_logprobs = MOST_LOGPROBS if has_logprobs and weighs else 0
        self._takes_schema = "schema" in inspect.signature(self._model.a_generate).parameters or any(
            p.kind is p.VAR_KEYWORD for p in inspect.signature(self._model.a_generate).parameters.values()
        )

    async def ask(self, prompt: str, schema: type[BaseModel] | None) -> Answer:
        known = {"schema": schema} if schema is not None and self._takes_schema else {}
        return _answer(await self._asked(self._model.a_generate, prompt, **known))

    async def ask_weighed(self, prompt: str, top_logprobs: int) -> Answer:
        reply = await self._asked(self._model.a_generate_raw_response, prompt, top_logprobs=top_logprobs)
        completion = reply[0] if isinstance(reply, tuple) else reply
        return read_completion(_plain(completion), self._secrets)

    async def _asked(self, ask: Callable[..., Coroutine[Any, Any, Any]], prompt: str, **how: Any) -> Any:
        try:
            if never_awaits(ask):
                return await awaited_in_thread(lambda: ask(prompt, **how))
            return await ask(prompt, **how)
        except asyncio.CancelledError:
            raise
        except JudgeError:
            raise
        except SystemExit:
            raise JudgeError("the judge model called sys.exit", ErrorClass.CASE_FATAL, admitted=True) from None
        except Exception as error:  # noqa: BLE001 - as above
            raise classed(error, self._secrets, now=self._now()) from None

    async def close(self) -> None:
        close = getattr(self._model, "close", None)
        if callable(close) and inspect.isawaitable(result := close()):
            await result


def _plain(value: Any) -> Any:
    """A completion as JSON has it, from whatever objects a model makes of it."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return _plain(vars(value)) if hasattr(value, "__dict__") else value


def imported(path: str, base: Any) -> Any:
    """The class at `package.module:Class`. ConfigError naming what is missing."""
    module_name, _, class_name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a module may do anything while it is imported
        raise ConfigError(
            f"{path} cannot be imported ({type(error).__name__}: {error}); install its package or put its folder on"
            " PYTHONPATH"
        ) from None
    if not (inspect.isclass(found) and issubclass(found, base)):
        bases = " or ".join(b.__name__ for b in base) if isinstance(base, tuple) else base.__name__
        raise ConfigError(f"{path} is no {bases}")
    return found


def _without_retries(model_class: Any, params: dict[str, Any]) -> dict[str, Any]:
    """DeepEval's own models take max_retries for the SDK's client; theirs are switched off by the environment."""
    takes = inspect.signature(model_class).parameters
    native = str(getattr(model_class, "__module__", "")).startswith("deepeval.models")
    if "max_retries" in takes or (native and any(p.kind is p.VAR_KEYWORD for p in takes.values())):
        return {"max_retries": 0, **params}
    return params


def _answer(reply: Any) -> Answer:
    """DeepEval allows a schema instance, a string, or either with its cost."""
    cost = None
    if isinstance(reply, tuple) and len(reply) == 2:
        reply, cost = reply
    text = reply.model_dump_json() if isinstance(reply, BaseModel) else reply
    if not isinstance(text, str):
        raise JudgeError(
            f"the model answered with {type(reply).__name__}, not with text", ErrorClass.CASE_FATAL, admitted=True
        )
    tokens = (getattr(cost, "input_tokens", None), getattr(cost, "output_tokens", None))
    return Answer(text=text, input_tokens=tokens[0], output_tokens=tokens[1])


def classed(error: Exception, secrets: Secrets, *, now: float) -> JudgeError:
    """A model's exception as a JudgeError, by the HTTP status that SDKs attach or the kind of the failure."""
    cause: BaseException = error
    last_attempt = getattr(error, "last_attempt", None)  # tenacity's RetryError hides the cause
    if last_attempt is not None and last_attempt.exception() is not None:
        cause = last_attempt.exception()
    status = getattr(cause, "status_code", None) or getattr(cause, "code", None)
    response = getattr(cause, "response", None)
    headers = {str(k).lower(): str(v) for k, v in dict(getattr(response, "headers", None) or {}).items()}
    if isinstance(status, int) and 300 <= status < 600:
        return refusal(status, str(cause), headers, secrets, now=now)
    words = secrets.blanked(in_words(cause))[:300]
    what = f"{type(cause).__name__}: {words}"
    if isinstance(cause, ConnectionRefusedError) or "connect" in type(cause).__name__.lower():
        return JudgeError(f"the judge cannot be reached ({what})", ErrorClass.RETRY, quoted=words)
    if isinstance(cause, TimeoutError | OSError) or "timeout" in type(cause).__name__.lower():
        return JudgeError(f"the judge failed ({what})", ErrorClass.RETRY, admitted=True, quoted=words)
    if isinstance(cause, ValueError):
        # of JSON, of pydantic, of DeepEval's own models: an answer that the model itself could not read
        return JudgeError(
            f"the judge model could not use its answer ({what})",
            ErrorClass.RETRY,
            admitted=True,
            traits=Trait.INVALID_ANSWER,
            quoted=words,
        )
    return JudgeError(f"the judge model failed ({what})", ErrorClass.CASE_FATAL, admitted=True, quoted=words)
