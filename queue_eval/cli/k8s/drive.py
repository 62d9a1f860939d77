"""queue-eval k8s drive"""

import asyncio
import os
import time

import click

from queue_eval.cli.inputs import EVERY_CASE, case_file, loaded
from queue_eval.cli.k8s.options import cluster, cluster_options, workers_option
from queue_eval.cli.logs import log_json_lines
from queue_eval.cli.report_output import print_report
from queue_eval.cli.status_lines import status_lines
from queue_eval.config.commit import commit_sha
from queue_eval.core.errors import UsageError
from queue_eval.core.naming import checked_run_id
from queue_eval.kubernetes.drive import drive
from queue_eval.kubernetes.driver import Driver
from queue_eval.kubernetes.plan import plan_of
from queue_eval.runs.produce import from_file


@click.command()
@click.argument("eval_yaml")
@click.option(
    "--run-id",
    metavar="R",
    help="[default: the name of this pod's Job, so that a restarted pod goes on with the same run]",
)
@click.option("--dataset", metavar="FILE", help="other cases than the file's")
@workers_option
@cluster_options
def command(
    eval_yaml: str,
    run_id: str | None,
    dataset: str | None,
    workers: int | None,
    context: str | None,
    namespace: str | None,
) -> int:
    """In a pod of the cluster: produce the run of EVAL_YAML, start its workers, wait, finalize, and exit with the
    verdict.

    Safe to be killed and started again at any point.

    """
    run_id = run_id or os.environ.get("JOB_NAME")
    if not run_id:
        raise UsageError("k8s drive is for a pod of a Job; name the run with --run-id elsewhere")
    settings = loaded(eval_yaml)
    in_the_pods = settings.settings.kubernetes.dataset if settings.settings.kubernetes else None
    cases = dataset or in_the_pods or settings.dataset
    plan = plan_of(
        settings, checked_run_id(run_id), dataset=cases, commit_sha=commit_sha(os.environ, settings.path.parent)
    )
    log_json_lines(run_id=plan.run_id, commit=plan.commit_sha)
    driver = Driver(cluster(context, namespace), plan, sleep=time.sleep)
    produce = from_file(
        settings,
        case_file(settings, cases),
        EVERY_CASE,
        run_id=plan.run_id,
        location=plan.store,
        source=cases,
        environment=os.environ,
    )
    report = asyncio.run(
        drive(driver, plan, settings, produce, environment=os.environ, workers=workers, showing=status_lines)
    )
    print_report(report, plan.store, as_json=True)
    return report.exit_code
