"""What a new run is made of: eval.yaml, its cases and its name, from the options of several commands."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from queue_eval.cli.options import place_of
from queue_eval.config.load import LoadedSettings, load
from queue_eval.core.errors import DataError
from queue_eval.core.limits import weight_of
from queue_eval.core.naming import checked_run_id
from queue_eval.dataset.bounds import Bounds
from queue_eval.dataset.reader import CaseFile
from queue_eval.dataset.selection import Selection

F = TypeVar("F", bound=Callable[..., Any])

EVERY_CASE = Selection()


def dataset_options(function: F) -> F:
    for option in reversed(
        (
            click.option("--dataset", metavar="FILE", help="other cases than the file's, or - for standard input"),
            click.option("--limit", type=click.IntRange(min=1), metavar="N", help="only the first N cases"),
            click.option("--sample", type=click.IntRange(min=1), metavar="N", help="N cases by chance"),
            click.option("--seed", type=int, default=0, show_default=True, help="of --sample"),
            click.option(
                "--tag", "tags", metavar="TAG", multiple=True, help="only cases with this tag, or one of these tags"
            ),
        )
    ):
        function = option(function)
    return function


def loaded(path: str, *, priority: str | None = None, here: bool = True) -> LoadedSettings:
    """`here`: this process judges, so what the judge needs must be here."""
    # they import Redis and more: only commands that need it wait for it
    from queue_eval.wiring import judging  # noqa: PLC0415
    from queue_eval.wiring.allowed_judges import refusals  # noqa: PLC0415

    found = load(
        Path(path),
        environment=os.environ if here else None,
        refusals=refusals(os.environ, Path(path)),
        check_metrics=judging.metric_problems,
        checks=(judging.judge_problems,) if here else (),
    )
    if context := click.get_current_context(silent=True):
        place = place_of(context)
        place.store = place.store or found.store
    return found.with_weight(weight_of(priority)) if priority else found


def case_file(settings: LoadedSettings, dataset: str | None) -> CaseFile:
    bounds = Bounds(**settings.settings.dataset_bounds.model_dump())
    return CaseFile(dataset or settings.dataset, bounds)


def checked_cases(
    settings: LoadedSettings, dataset: str | None, chosen: Selection = EVERY_CASE
) -> tuple[CaseFile, int, int]:
    """The case file, how many cases of it are chosen, and about how many calls they are.

    DataError names what is wrong with one of them.
    """
    from queue_eval.judge.metrics import faults  # noqa: PLC0415 - imports DeepEval
    from queue_eval.producer.checks import checked  # noqa: PLC0415

    specs = settings.settings.specs
    cases = case_file(settings, dataset)
    count = sum(1 for _ in checked(chosen.of(cases), partial(faults, specs)))
    if not count:
        raise DataError(f"{dataset or settings.dataset}: no cases; a run needs at least one")
    return cases, count, count * settings.settings.judge_calls_per_case


def selection(limit: int | None, sample: int | None, seed: int, tags: tuple[str, ...]) -> Selection:
    return Selection(limit=limit, sample=sample, seed=seed, tags=tags)


def run_id_or_new(run_id: str | None) -> str:
    return (
        checked_run_id(run_id) if run_id is not None else f"run-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.urandom(2).hex()}"
    )
