"""Options that several verbs share, and what they lead to."""

import math
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from queue_eval.config.load import LoadedSettings, load
from queue_eval.config.settings import RedisSettings, weight_of
from queue_eval.core.errors import DataError, UsageError
from queue_eval.core.location import local_folder
from queue_eval.core.naming import checked_run_id
from queue_eval.dataset.bounds import Bounds
from queue_eval.dataset.reader import CaseFile
from queue_eval.dataset.selection import Selection
from queue_eval.local.contact import Contact
from queue_eval.local.find_redis import named_url

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
    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds < math.inf:  # nan too is outside
            self.fail(f"{value!r} is no time; give seconds from 0 on", param, ctx)
        return seconds


LIMIT = _Limit()
SECONDS = _Seconds()

DEFAULT_STORE = "runs"
EVERY_CASE = Selection()


def store_option(required: bool = False) -> Callable[[F], F]:  # noqa: FBT002 - reads as a word of click's
    return click.option(
        "--store",
        metavar="PLACE",
        required=required,
        help="results and reports: a directory, or s3://bucket/prefix  [default: the file's, else runs]",
    )


redis_option = click.option(
    "--redis", "redis_url", metavar="URL", help="a shared Redis  [default: the file's, QUEUE_EVAL_REDIS_URL, REDIS_URL]"
)
json_option = click.option("--json", "as_json", is_flag=True, help="JSON for programs")
concurrency_option = click.option(
    "--concurrency",
    type=click.IntRange(1, 4096),
    metavar="C",
    help="cases in flight in one process  [default: the file's]",
)


wait_option = click.option(
    "--wait-s",
    type=SECONDS,
    default=0.0,
    metavar="S",
    help="wait so long for somebody to enqueue the run, and for Redis",
)
follow_option = click.option(
    "--follow-s",
    type=SECONDS,
    metavar="S",
    help="while waiting, say every S seconds as a JSON line how the run stands, and enqueue it again should Redis lose it",
)


priority_option = click.option(
    "--priority",
    type=_Priority(),
    metavar="P",
    help="share beside other runs under the same limit: pr (100), nightly (1) or a weight  [default: the file's]",
)


def dataset_options(function: F) -> F:
    for option in reversed(
        (
            click.option("--dataset", metavar="FILE", help="other cases than the file's; - for standard input"),
            click.option("--limit", type=click.IntRange(min=1), metavar="N", help="only the first N cases"),
            click.option("--sample", type=click.IntRange(min=1), metavar="N", help="N cases by chance"),
            click.option("--seed", type=int, default=0, show_default=True, help="of --sample"),
            click.option("--filter", "tag", metavar="TAG", help="only cases with this tag"),
        )
    ):
        function = option(function)
    return function


def loaded(path: str, *, priority: str | None = None, here: bool = True) -> LoadedSettings:
    """`here`: this process judges, so what the judge needs must be here."""
    from queue_eval.wiring import judging  # noqa: PLC0415 - imports Redis and more: only verbs that need it wait for it

    found = load(
        Path(path),
        environment=os.environ if here else None,
        check_metrics=judging.metric_problems,
        checks=(judging.judge_problems,) if here else (),
    )
    return found.with_weight(weight_of(priority)) if priority else found


def case_file(settings: LoadedSettings, dataset: str | None) -> CaseFile:
    bounds = Bounds(**settings.settings.dataset_bounds.model_dump())
    return CaseFile(dataset or settings.dataset, bounds)


def checked_cases(
    settings: LoadedSettings, dataset: str | None, chosen: Selection = EVERY_CASE
) -> tuple[CaseFile, int, int]:
    """The case file, how many cases of it are chosen, and about how many calls they are. DataError names what is wrong with one of them."""
    from queue_eval.judge.metrics import faults, specs_of  # noqa: PLC0415 - imports DeepEval
    from queue_eval.producer.checks import checked  # noqa: PLC0415

    specs = specs_of([m.model_dump(mode="json") for m in settings.settings.metrics])
    cases = case_file(settings, dataset)
    count = sum(1 for _ in checked(chosen.of(cases), partial(faults, specs)))
    if not count:
        raise DataError(f"{dataset or settings.dataset}: no cases; a run needs at least one")
    return cases, count, count * sum(spec.judge_calls for spec in specs)


def selection(limit: int | None, sample: int | None, seed: int, tag: str | None) -> Selection:
    return Selection(limit=limit, sample=sample, seed=seed, tag=tag)


def run_id_or_new(run_id: str | None) -> str:
    return (
        checked_run_id(run_id) if run_id is not None else f"run-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.urandom(2).hex()}"
    )


def redis_url_of_run(option: str | None, store: str, run_id: str, settings: RedisSettings | None = None) -> str:
    """The Redis of an existing run: named, or the one that `queue-eval run` of this machine started. UsageError when there is none."""
    found = named_url(option, settings or RedisSettings(), os.environ) or Contact(local_folder(store), run_id).url()
    if found is None:
        raise UsageError(
            f"run {run_id!r}: no Redis is named, and none runs for it on this machine; add --redis URL, or go on with queue-eval run --resume {run_id}"
        )
    return found
