"""Where results and reports lie, a directory or s3://bucket/prefix; and one spelling of an address."""

import re
import shlex
from pathlib import Path

from queue_eval.core.errors import ConfigError

S3 = "s3://"
DEFAULT_STORE = "runs"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")


def is_remote(location: str) -> bool:
    return "://" in location


def local_folder(location: str) -> Path:
    """Where this machine keeps what no other needs: the logs of its workers, and how to reach its own Redis."""
    return Path(DEFAULT_STORE if is_remote(location) else location)


def of_run(location: str, run_id: str) -> str:
    """The run's own place, as a user would name it."""
    return f"{location.rstrip('/')}/{run_id}" if is_remote(location) else str(Path(location) / run_id)


def store_option_of(location: str) -> str:
    """Return the option that names the store in a command to paste; empty for the default."""
    return "" if location == DEFAULT_STORE else f" --store {shlex.quote(location)}"


def bucket_and_prefix(location: str) -> tuple[str, str]:
    """ConfigError unless it is s3://bucket or s3://bucket/prefix."""
    bucket, _, prefix = location.removeprefix(S3).partition("/")
    if not location.startswith(S3) or not bucket:
        raise ConfigError(f"store: {location!r} is no place for results; write a directory, or s3://bucket/prefix")
    return bucket, prefix.strip("/")


def canonical(url: str) -> str:
    """Return one spelling of an address: scheme and host in lower case, no default port, no slash at the end."""
    scheme, mark, rest = url.partition("://")
    host, _, path = rest.partition("/")
    scheme, host = scheme.lower(), host.lower()
    for implied in (("http", ":80"), ("https", ":443")):
        if scheme == implied[0]:
            host = host.removesuffix(implied[1])
    return f"{scheme}{mark}{host}/{path.rstrip('/')}".rstrip("/") if mark else url


def url_without_secret(url: str) -> str:
    """Leave out user, password and query, where passwords stand too. For messages.

    By hand: to a parser of URLs a password with / or # ends before its @.
    """
    scheme, mark, rest = url.partition("://")
    if not mark:
        scheme, rest = "", url
    elif not _SCHEME.fullmatch(scheme):
        scheme = "…"  # a password, perhaps
    place, _, query = rest.partition("?")
    if "@" in place:
        return f"{scheme}{mark}***@{place.rpartition('@')[2]}"
    # of a query with an @, or of a password with a ?
    return f"{scheme}{mark}…" if "@" in query else f"{scheme}{mark}{place}"
