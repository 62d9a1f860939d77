"""The judge of eval.yaml: the model that scores, and how it is reached."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from queue_eval.core.price import Price
from queue_eval.core.settings.section import Section


class PriceSettings(Section):
    input_per_million_usd: float = Field(ge=0)
    output_per_million_usd: float = Field(ge=0)


_OF_A_SECRET = re.compile(r"key|secret|token$|passw|credential|^sig(nature)?$|^authorization$", re.IGNORECASE)


def _without_secrets(values: dict[str, Any], remedy: str) -> dict[str, Any]:
    for name in _names(values):
        if _OF_A_SECRET.search(name):
            raise ValueError(f"{name}: a secret does not belong into the file; {remedy}")
    return values


def _names(value: Any) -> Iterator[str]:
    """Yield the names in an object and in what it holds."""
    if isinstance(value, dict):
        yield from map(str, value)
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _names(child)


class _Judge(Section):
    account: str = Field(
        "default", description="all runs on the same Redis with the same provider, account and model share one limiter"
    )
    price: PriceSettings | None = Field(
        None, description="what the model's tokens cost. Without it the report notes unpriced"
    )

    @property
    def token_price(self) -> Price | None:
        return Price(**self.price.model_dump()) if self.price else None


class OpenAIJudge(_Judge):
    """Any OpenAI-compatible endpoint: OpenAI, Azure, vLLM, Ollama, LiteLLM, OpenRouter."""

    type: Literal["openai"]
    model: str = Field(min_length=1)
    base_url: str = Field(
        "https://api.openai.com/v1", pattern=r"^https?://", description="up to and without /chat/completions"
    )
    api_key_env: str | None = Field(None, description="the NAME of the environment variable that holds the key")
    api_key_header: str = Field("Authorization", pattern=r"^[A-Za-z0-9-]+$", description="api-key for Azure")
    query: dict[str, str] = Field(default_factory=dict, description="query parameters, such as api-version for Azure")
    temperature: float | None = Field(0.0, ge=0, le=2, description="null leaves it to the server")
    max_output_tokens: int | None = Field(None, gt=0)
    structured_output: Literal["auto", "json_schema", "json_object", "prompt"] = Field(
        "auto", description="auto begins with json_schema and steps down when the server lacks it"
    )

    @field_validator("base_url")
    @classmethod
    def _an_address_alone(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"{error}; write http(s)://HOST[:PORT]/…") from None
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                "credentials do not belong into the URL; name the key's environment variable as api_key_env"
            )
        if parts.query or parts.fragment:
            raise ValueError("parameters do not belong into the URL; write them under query, and a key as api_key_env")
        if not parts.hostname or port == 0:
            found = "port 0 is none" if parts.hostname else "there is no host"
            raise ValueError(f"{found}; write http(s)://HOST[:PORT]/…")
        return url

    @field_validator("query")
    @classmethod
    def _no_secret_in_query(cls, query: dict[str, str]) -> dict[str, str]:
        return _without_secrets(query, "name the key's environment variable as api_key_env")

    allow_link_local: bool = Field(False, description="allow link-local and metadata addresses as base_url")


class ImportedJudge(_Judge):
    """Any DeepEval model by import path; its own retries are switched off."""

    type: Literal["import"]
    path: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="package.module:Class of a DeepEvalBaseLLM"
    )
    params: dict[str, Any] = Field(
        default_factory=dict,
        description="arguments of its constructor",
    )

    params_env: dict[str, str] = Field(
        default_factory=dict,
        description="arguments of its constructor whose values stand in environment variables: argument → NAME",
    )

    @field_validator("params")
    @classmethod
    def _no_secret_in_params(cls, params: dict[str, Any]) -> dict[str, Any]:
        return _without_secrets(params, "name its environment variable under params_env")

    @property
    def model(self) -> str:
        return self.path


class LexicalJudge(_Judge):
    """Offline and deterministic: compares words, numbers and negations.

    For trying things out, not for verdicts that matter.
    """

    type: Literal["lexical"]

    @property
    def model(self) -> str:
        return "lexical"


JudgeSettings = Annotated[OpenAIJudge | ImportedJudge | LexicalJudge, Field(discriminator="type")]
