"""Options that several commands share, and what they lead to."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from queue_eval.cli.output import shell_quoted
from queue_eval.core.errors import QueueEvalError
from queue_eval.core.limits import weight_of
from queue_eval.core.location import DEFAULT_STORE, store_option_of, url_without_secret

F = TypeVar("F", bound=Callable[..., Any])


class _Limit(click.ParamType):
    """A positive number, or `none`, which comes out as infinite."""

    name = "limit"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if value == "none":
            return math.inf
        try:
            limit = float(value)
        except ValueError:
            limit = 0.0
        if not 0.01 <= limit <= 1e12:
            self.fail(f"{value!r} is no limit; give a number from 0.01 on, or none to lift it", param, ctx)
        return limit


class _Priority(click.ParamType):
    name = "priority"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            weight_of(value)
        except ValueError:
            self.fail(f"{value!r} is no priority; use pr, nightly, or a weight such as 10", param, ctx)
        return str(value)


class _Seconds(click.ParamType):
    """Seconds from 0 on, plain or with a unit."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value  # a default
        found = _DURATION.fullmatch(value.strip())
        if not found:
            self.fail(f"{value!r} is no time; write seconds, or 30s, 5m or 2h", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(|s|m|h)")
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}

LIMIT = _Limit()
SECONDS = _Seconds()


@dataclass(slots=True)
class Place:
    """Where the run of this command is, as far as its options and its file name it."""

    store: str | None = None
    redis_url: str | None = None

    def completed(self, error: QueueEvalError) -> str:
        """Return the error's message with a command that works when it is pasted."""
        return str(error).replace(error.command, error.command + self.options, 1) if error.command else str(error)

    @property
    def options(self) -> str:
        url = self.redis_url or ""
        # a password is shown nowhere: a user who named one this way names it again
        redis = f" --redis {shell_quoted(url)}" if url and url_without_secret(url) == url else ""
        return redis + store_option_of(self.store or DEFAULT_STORE)


def place_of(context: click.Context) -> Place:
    return context.find_root().ensure_object(Place)


def _keep_store(context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    place_of(context).store = value
    return value


def _keep_redis(context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    place_of(context).redis_url = value
    return value


def store_option(required: bool = False) -> Callable[[F], F]:  # noqa: FBT002 - reads as a word of click's
    return click.option(
        "--store",
        metavar="PLACE",
        required=required,
        callback=_keep_store,
        help="results and reports: a directory, or s3://bucket/prefix  [default: the file's, else runs]",
    )


redis_option = click.option(
    "--redis",
    "redis_url",
    metavar="URL",
    callback=_keep_redis,
    help="a shared Redis  [default: the file's, QUEUE_EVAL_REDIS_URL, REDIS_URL]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="JSON for programs")
concurrency_option = click.option(
    "--concurrency",
    type=click.IntRange(1, 4096),
    metavar="C",
    help="cases in flight in one process  [default: the file's]",
)


wait_option = click.option(
    "--wait-timeout",
    "wait_s",
    type=SECONDS,
    default=0.0,
    metavar="TIME",
    help="how long to wait for Redis, and for the run to be enqueued, such as 30s or 5m",
)
follow_option = click.option(
    "--status-interval",
    "follow_s",
    type=SECONDS,
    metavar="TIME",
    help=(
        "while waiting, print the run's status at this interval as a JSON line, and enqueue the run again should Redis"
        " lose it"
    ),
)


priority_option = click.option(
    "--priority",
    type=_Priority(),
    metavar="P",
    help="share beside other runs under the same limit: pr (100), nightly (1) or a weight  [default: the file's]",
)
