"""queue-eval run"""

import asyncio
import os
from pathlib import Path

import click

from queue_eval.cli.inputs import case_file, dataset_options, loaded, run_id_or_new, selection
from queue_eval.cli.options import (
    concurrency_option,
    json_option,
    priority_option,
    redis_option,
    store_option,
)
from queue_eval.cli.output import print_json, print_notice
from queue_eval.cli.produced import produced_lines
from queue_eval.cli.progress_view import ProgressView
from queue_eval.cli.report_output import print_report
from queue_eval.cli.template import worker_template
from queue_eval.config.load import must_be_readable
from queue_eval.config.redis_settings import RedisSettings
from queue_eval.core import objects
from queue_eval.core.errors import NoInputError, UsageError
from queue_eval.core.location import DEFAULT_STORE, is_remote
from queue_eval.core.naming import checked_run_id
from queue_eval.core.report import Report
from queue_eval.dataset.reader import CaseFile
from queue_eval.dataset.selection import Selection
from queue_eval.local.find_redis import named_url
from queue_eval.local.forks import Template
from queue_eval.local.plan import Listeners, LocalPlan
from queue_eval.local.run import LocalRun
from queue_eval.producer.producer import Produced
from queue_eval.runs.produce import Produce, from_file, from_store


@click.command()
@click.argument("eval_yaml", required=False)
@click.option("--resume", metavar="R", help="go on with run R. Its manifest knows the rest")
@click.option("--run-id", metavar="R", help="a name for the run  [default: by date and time]")
@click.option("--workers", type=click.IntRange(1, 256), metavar="N", help="worker processes  [default: the file's]")
@concurrency_option
@priority_option
@dataset_options
@store_option()
@redis_option
@json_option
def command(
    eval_yaml: str | None,
    resume: str | None,
    run_id: str | None,
    workers: int | None,
    concurrency: int | None,
    priority: str | None,
    dataset: str | None,
    limit: int | None,
    sample: int | None,
    seed: int,
    tags: tuple[str, ...],
    store: str | None,
    redis_url: str | None,
    as_json: bool,
) -> int:
    """A whole run on this machine, from the cases of EVAL_YAML to a verdict.

    Uses a named Redis, else starts one of its own. The first Ctrl-C stops gracefully and prints how to go on; the
    second ends at once.
    """
    if resume and run_id:
        raise UsageError("--resume names the run; leave --run-id out")
    if not (eval_yaml or resume):
        raise UsageError(
            "name the file: queue-eval run eval.yaml (queue-eval init writes one), or a run to go on with: --resume R"
        )
    if eval_yaml:
        must_be_readable(Path(eval_yaml))
    with worker_template() as template:
        plan, produce, cases = _planned(
            eval_yaml,
            resume,
            run_id,
            workers,
            concurrency,
            priority,
            dataset,
            selection(limit, sample, seed, tags),
            store,
            redis_url,
        )
        if priority and not plan.redis_url:
            print_notice(
                "--priority has no effect: this run has a Redis of its own, which no other run uses; name a shared one"
                " with --redis or QUEUE_EVAL_REDIS_URL"
            )
        report = run_and_show(plan, produce, cases, template, as_json=as_json)
    print_report(report, plan.store, as_json=as_json, redis_url=plan.redis_url)
    return report.exit_code


def _planned(
    eval_yaml: str | None,
    resume: str | None,
    run_id: str | None,
    workers: int | None,
    concurrency: int | None,
    priority: str | None,
    dataset: str | None,
    chosen: Selection,
    store: str | None,
    redis_url: str | None,
) -> tuple[LocalPlan, Produce, CaseFile | None]:
    cases: CaseFile | None = None
    redis = RedisSettings()
    if eval_yaml:
        settings = loaded(eval_yaml, priority=priority)
        redis = settings.settings.redis
        store = store or settings.store
        run_id = checked_run_id(resume) if resume else run_id_or_new(run_id)
        if resume:
            _must_exist(store, run_id)
        cases = case_file(settings, dataset)
        produce: Produce = from_file(
            settings,
            cases,
            chosen,
            run_id=run_id,
            location=store,
            source=dataset or settings.settings.dataset,
            environment=os.environ,
        )
    else:
        store = store or DEFAULT_STORE
        run_id = checked_run_id(resume or "")
        _must_exist(store, run_id)
        produce = from_store(run_id, store, os.environ)
    plan = LocalPlan(
        run_id=run_id,
        store=store,
        redis_url=named_url(redis_url, redis.url, os.environ),
        redis=redis,
        workers=workers,
        concurrency=concurrency,
        environment=dict(os.environ),
        eval_yaml=eval_yaml,
    )
    return plan, produce, cases


def _must_exist(store: str, run_id: str) -> None:
    if not is_remote(store) and not (Path(store) / run_id / objects.MANIFEST).exists():
        raise NoInputError(
            f"run {run_id!r}: {store} holds no {objects.MANIFEST} of it; check the run id, and name the store with"
            " --store (eval.yaml's is beside that file)"
        )


def run_and_show(
    plan: LocalPlan, produce: Produce, cases: CaseFile | None, template: Template | None, *, as_json: bool
) -> Report:
    with ProgressView(as_json=as_json) as view:

        def produced(what: Produced) -> None:
            if as_json:
                print_json(
                    {
                        "event": "produced",
                        "run_id": plan.run_id,
                        "cases": what.manifest.dataset.cases,
                        "enqueued": what.enqueued,
                        "stored": what.stored,
                    }
                )
                return
            for line in produced_lines(what, cases):
                view.notice(line)

        return asyncio.run(
            LocalRun(
                plan, produce, Listeners(produced=produced, progress=view.show, notice=view.notice), template
            ).run()
        )
