"""A thin client for OpenAI-compatible endpoints: one aiohttp session per process, one request per call, no retries."""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import ThreadedResolver
from deepeval.models.llms.constants import OPENAI_MODELS_DATA
from pydantic import BaseModel
from pydantic_core import to_json

from queue_eval.core.attempt import ErrorClass
from queue_eval.core.settings.judge import OpenAIJudge
from queue_eval.judge import metadata
from queue_eval.judge.completion import read_completion
from queue_eval.judge.error_body import ErrorBody, error_in
from queue_eval.judge.headers import limits_named
from queue_eval.judge.metadata import GuardedResolver
from queue_eval.judge.proxy import proxy_for
from queue_eval.judge.refusal import refusal
from queue_eval.judge.schema import SCHEMA_REQUEST, schema_text, strict_schema
from queue_eval.judge.secrets import Secrets
from queue_eval.ports.clock import Now
from queue_eval.ports.judge import Answer
from queue_eval.ports.judge_error import JudgeError, Trait

log = logging.getLogger("queue_eval.judge")

MAX_ANSWER_BYTES = 4_000_000
READ_BYTES = 65_536
MOST_LOGPROBS = 20  # by OpenAI's API
_DOWNGRADE = {"json_schema": "json_object", "json_object": "prompt"}


class OpenAIClient:
    def __init__(
        self, settings: OpenAIJudge, *, api_key: Callable[[], str | None], now: Now, weighs: bool = True
    ) -> None:
        """`weighs`: return how probable an answer's tokens were, where DeepEval takes the model to be one that does."""
        self._url = settings.base_url.rstrip("/") + "/chat/completions"
        self._proxy = proxy_for(self._url)
        self._settings = settings
        self._api_key = api_key
        self._secrets = Secrets(lambda: [api_key() or ""])
        self._now = now
        self._may_downgrade = settings.structured_output == "auto"
        self._structured = "json_schema" if self._may_downgrade else str(settings.structured_output)
        self.most_logprobs = most_logprobs(settings.model) if weighs else 0
        self._proven: set[str] = set()  # kinds of structured output that the server has answered to
        self._fixed: dict[str, Any] = {"model": settings.model}
        if settings.temperature is not None:
            self._fixed["temperature"] = settings.temperature
        if settings.max_output_tokens is not None:
            self._fixed["max_completion_tokens"] = settings.max_output_tokens
        self._session: aiohttp.ClientSession | None = None
        self._connecting = asyncio.Lock()

    async def ask(self, prompt: str, schema: type[BaseModel] | None) -> Answer:
        return await self._asked(prompt, schema, self._structured if schema else "prompt", {})

    async def ask_weighed(self, prompt: str, top_logprobs: int) -> Answer:
        logprobs = {"logprobs": True, "top_logprobs": min(top_logprobs, self.most_logprobs)}
        return await self._asked(prompt, None, "prompt", logprobs)

    async def _asked(
        self, prompt: str, schema: type[BaseModel] | None, structured: str, logprobs: dict[str, Any]
    ) -> Answer:
        sent = self._body(prompt, schema, structured) | logprobs
        status, headers, text = await self._post(sent)
        lower = {name.lower(): value for name, value in headers.items()}
        body: Any = None
        if 200 <= status < 300:
            body = _parsed(text)
            error = error_in(body)
            if error is None:
                answer = replace(
                    read_completion(text if body is None else body, self._secrets), limits=limits_named(lower)
                )
                self._proven.add(structured)
                return answer
            # an error is one, whatever the HTTP status
            status = error.status or (429 if error.is_rate_limit else 502)
        failure = refusal(status, text, lower, self._secrets, now=self._now())
        if failure.is_unexplained and logprobs and _names(ErrorBody.of(text), "logprobs"):
            self.most_logprobs = 0
            raise _changed(failure, "it is asked without logprobs")
        if failure.is_unexplained and (change := self._change(text, schema, structured, sent)):
            raise _changed(failure, change)
        raise failure

    def _change(self, text: str, schema: type[BaseModel] | None, structured: str, sent: dict[str, Any]) -> str | None:
        """Leave out of every later request what the server does not take; what was changed, or None.

        A parameter that the error names goes first. Otherwise the first structured request of a server may fail for its
        structure, whatever words it has for that.
        """
        error = ErrorBody.of(text)
        for name in ("max_completion_tokens", "temperature"):
            if name in sent and _names(error, name):
                if name in self._fixed:  # of many that were under way, the first leaves it out
                    value = self._fixed.pop(name)
                    if name == "max_completion_tokens":
                        self._fixed["max_tokens"] = value
                    log.warning("the judge takes no %s; it is left out from now on", name)
                return f"{name} is left out"
        if (
            schema
            and self._may_downgrade
            and structured in _DOWNGRADE
            and (structured not in self._proven or _names_structure(text))
        ):
            if self._structured == structured:  # of many that were under way, the first steps down
                self._structured = _DOWNGRADE[structured]
                log.warning(
                    "the judge takes no response_format %s; answers are asked for by %s from now on",
                    structured,
                    self._structured,
                )
            return f"structured output by {self._structured} is tried instead of {structured}"
        return None

    def _body(self, prompt: str, schema: type[BaseModel] | None, structured: str) -> dict[str, Any]:
        body = dict(self._fixed)
        if schema and structured == "json_schema":
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": schema.__name__, "strict": True, "schema": strict_schema(schema)},
            }
        elif schema:
            prompt += SCHEMA_REQUEST + schema_text(schema)
            if structured == "json_object":
                body["response_format"] = {"type": "json_object"}
        body["messages"] = [{"role": "user", "content": prompt}]
        return body

    async def _post(self, body: dict[str, Any]) -> tuple[int, Mapping[str, str], str]:
        session = await self._connected()
        try:
            async with session.post(
                self._url,
                data=to_json(body),
                params=self._settings.query,
                headers=self._headers(),
                allow_redirects=False,
                proxy=self._proxy,
            ) as response:
                data = await _bounded(response)
        except aiohttp.ClientConnectorError as error:
            reason = error.os_error.strerror or error.os_error
            raise JudgeError(
                f"the judge at {_place(self._url)} cannot be reached ({reason})", ErrorClass.RETRY
            ) from error
        except TimeoutError as error:
            raise JudgeError(
                f"the judge at {_place(self._url)} did not answer in time", ErrorClass.RETRY, admitted=True
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise JudgeError(
                f"the connection to the judge broke ({type(error).__name__})", ErrorClass.RETRY, admitted=True
            ) from error
        return response.status, response.headers, data.decode("utf-8", errors="replace")

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if key := self._api_key():
            headers[self._settings.api_key_header] = (
                f"Bearer {key}" if self._settings.api_key_header.lower() == "authorization" else key
            )
        return headers

    async def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            # many cases begin at once: one of them connects, the others wait for it
            async with self._connecting:
                if self._session is None:
                    if not self._settings.allow_link_local:
                        await metadata.check(self._url, through_proxy=self._proxy is not None)
                    self._session = _new_session(guarded=not self._settings.allow_link_local)
        return self._session

    async def close(self) -> None:
        if self._session:
            await self._session.close()


def _changed(failure: JudgeError, change: str) -> JudgeError:
    """The next request leaves out what this one was rejected for."""
    return JudgeError(
        f"{failure}; {change}",
        ErrorClass.RETRY,
        admitted=True,
        traits=Trait.REJECTED | Trait.CHANGED_REQUEST,
        quoted=failure.quoted,
    )


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """The whole body; JudgeError when it is larger than any answer.

    Read piece by piece: a compressed body does not show its length.
    """
    data = bytearray()
    while more := await response.content.read(READ_BYTES):
        data += more
        if len(data) > MAX_ANSWER_BYTES:
            raise JudgeError(
                f"the judge's answer is larger than {MAX_ANSWER_BYTES:,} bytes", ErrorClass.CASE_FATAL, admitted=True
            )
    return bytes(data)


def _new_session(*, guarded: bool) -> aiohttp.ClientSession:
    # no limits of its own: concurrency and the limiter bound what is under way, and the only timeouts are ours
    resolver = GuardedResolver() if guarded else ThreadedResolver()
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30, resolver=resolver)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=15)
    return aiohttp.ClientSession(connector=connector, timeout=timeout)


def most_logprobs(model: str) -> int:
    """As DeepEval's own client for OpenAI takes the model, so that GEval weighs its scores where it does there."""
    known = OPENAI_MODELS_DATA.get(model)
    return (known.max_log_probs or MOST_LOGPROBS) if known.supports_log_probs else 0


def _names(error: ErrorBody, parameter: str) -> bool:
    """Quoted, where it is a word of every day: an error may repeat the prompt."""
    return (
        error.param == parameter
        or any(f"{quote}{parameter}{quote}" in error.message for quote in "'\"`")
        or ("_" in parameter and parameter in error.message)
    )


def _names_structure(text: str) -> bool:
    low = text.lower()
    return any(
        word in low
        for word in (
            "response_format",
            "response_schema",
            "json_schema",
            "json_object",
            "guided",
            "structured",
            "grammar",
        )
    )


def _parsed(text: str) -> Any:
    """None for what is no JSON."""
    try:
        return json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return None


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
