"""The Redis of eval.yaml."""

from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, field_validator

from queue_eval.core.settings.section import Section


def without_password(url: str | None) -> str | None:
    if url and (urlsplit(url).password is not None or "password" in dict(parse_qsl(urlsplit(url).query))):
        raise ValueError(
            "a password does not belong into the file;"
            " name its environment variable as redis.password_env, or on a cluster its Secret"
        )
    return url


class RedisSettings(Section):
    url: str | None = Field(
        None,
        description="redis://HOST:PORT/DB, rediss://…, unix:///PATH. Without it REDIS_URL, then a Redis of our own",
    )
    password_env: str | None = Field(
        None,
        description="the NAME of the environment variable that holds the password. Otherwise QUEUE_EVAL_REDIS_PASSWORD",
    )
    retention_s: int = Field(
        14 * 86400, ge=3600, description="keys of a run that no worker works on expire after this long"
    )
    finalized_retention_s: int = Field(86400, ge=1, description="keys of a finalized run expire after this long")

    @field_validator("url")
    @classmethod
    def _no_secret(cls, url: str | None) -> str | None:
        return without_password(url)
