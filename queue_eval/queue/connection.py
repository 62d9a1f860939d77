"""Connecting to Redis, and its errors in our words."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import redis.exceptions as errors
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from queue_eval.core.errors import AccessError, ConfigError, ForeignKeysError, UnavailableError
from queue_eval.core.location import url_without_secret
from queue_eval.redis_faults import Fault, fault, refusal

_OPTIONS = frozenset(
    (
        "username",
        "password",
        "db",
        "client_name",
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_ca_data",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_cert_reqs",
        "ssl_check_hostname",
        "ssl_min_version",
    )
)
# the client takes the code off an error that it has a class for; within a script it stays
_OF_A_CLUSTER = (errors.MovedError, errors.AskError, errors.ClusterCrossSlotError)
_CLUSTER = re.compile(r"\b(MOVED|ASK|CROSSSLOT) |cluster mode|cluster support", re.IGNORECASE)
_MODES = {b"cluster": "a node of a Redis Cluster", b"sentinel": "a Sentinel, which holds no data"}
MOST_DATABASES = 2**31
_CERT_REQS = ("none", "optional", "required")
TIMEOUT_S = 4.0  # a third of the default lease: a connection that swallows a heartbeat is given up in time for the next


def connect(url: str, *, password: str | None = None) -> Redis:
    """A client that never retries by itself: a claim whose reply was lost must not be sent twice unseen."""
    options: dict[str, Any] = {"password": password} if password else {}
    try:
        client = Redis.from_url(
            url,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            max_connections=64,
            **options,
        )
        _check_database(url)
        _check_options(url)
        # not connected, but it takes the URL's parameters: an unknown one is a mistake in the URL
        client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError) as error:
        # what a parser makes of a password that is not encoded stands in its words
        reason = (
            "what stands before the @ cannot be read; encode / # ? @ of a password as %2F %23 %3F %40"
            if "@" in url
            else error
        )
        raise ConfigError(
            f"redis: {url_without_secret(url)!r} is no Redis URL ({reason}); write redis://HOST:PORT/DB, rediss:// for"
            " TLS or unix:///PATH"
        ) from None
    return client


def _check_database(url: str) -> None:
    """ValueError where the client would silently take database 0, or ask for one that no server has."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss"):
        return
    named = re.fullmatch(r"/?|/(\d+)/?", parts.path)
    if not named:
        raise ValueError(f"the database is a number, and not {parts.path[1:]!r}")
    if named[1] and int(named[1][:11]) >= MOST_DATABASES:
        raise ValueError(f"no server has a database {named[1][:40]}")


def _check_options(url: str) -> None:
    """ValueError for an option that would change what the client gives back, or that it would not take before it
    connects.
    """
    for name, value in parse_qsl(urlsplit(url).query, keep_blank_values=True):
        if name not in _OPTIONS:
            raise ValueError(f"{name!a} is no option here; there are {', '.join(sorted(_OPTIONS))}")
        if name == "ssl_cert_reqs" and value not in _CERT_REQS:
            raise ValueError(f"ssl_cert_reqs is none, optional or required, and not {value!a}")


@contextmanager
def redis_errors() -> Iterator[None]:
    """Redis' errors as UnavailableError, a wrong password or missing right as AccessError."""
    try:
        yield
    except (errors.RedisError, OSError) as error:
        match fault(error):
            case Fault.REFUSED:
                raise refusal(error) from error
            case Fault.AWAY:
                what = "cannot serve now" if isinstance(error, errors.ResponseError) else "cannot be reached"
                raise UnavailableError(f"redis {what}: {error}") from error
            case Fault.DEFECT:
                if wrong := _wrong_server(error):
                    raise wrong from error
                raise


@contextmanager
def as_written(run_id: str) -> Iterator[None]:
    """ForeignKeysError where the run's keys hold what no queue-eval has written.

    Another program that writes to this Redis is no defect.
    """
    try:
        yield
    except (ValueError, KeyError, errors.ResponseError) as error:
        if isinstance(error, errors.RedisError) and (wrong := _wrong_server(error)):
            raise wrong from error
        raise ForeignKeysError(run_id, error) from error


def _wrong_server(error: Exception) -> ConfigError | None:
    """Return the error of a server that cannot hold a run, whatever is in it."""
    message = str(error)
    if isinstance(error, _OF_A_CLUSTER) or _CLUSTER.search(message):
        return _unsuited(b"cluster")
    if isinstance(error, errors.InvalidResponse):
        return ConfigError("redis: what answers there is no Redis; check the host and the port")
    if "DB index is out of range" in message or "invalid DB index" in message:
        return ConfigError(
            "redis: the server has no database of that number; name a smaller one, such as redis://HOST:PORT/0"
        )
    return None


def _unsuited(mode: bytes) -> ConfigError:
    return ConfigError(
        f"redis: this is {_MODES[mode]}, which keeps no run together; name a single server, or one with replicas"
    )


async def check(redis: Redis, url: str) -> None:
    """UnavailableError, AccessError or ConfigError naming the server, when it does not answer or is none for us."""
    try:
        with redis_errors():
            await redis.ping()
            with suppress(errors.ResponseError):  # a server of before 6.0, or a user who may not ask
                hello: Any = await redis.execute_command("HELLO")  # type: ignore[no-untyped-call]
                facts = hello if isinstance(hello, dict) else dict(zip(hello[::2], hello[1::2], strict=False))
                if (mode := facts.get(b"mode")) in _MODES:
                    raise _unsuited(mode)
    except UnavailableError as error:
        raise UnavailableError(
            f"redis at {url_without_secret(url)}: {error}; start it, or name another with --redis URL"
        ) from None
    except AccessError as error:
        raise AccessError(f"redis at {url_without_secret(url)}: {error}") from None
