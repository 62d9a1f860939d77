"""queue-eval k8s logs"""

import time

import click

from queue_eval.cli.k8s.options import cluster, cluster_options
from queue_eval.cli.output import print_lines, print_notice
from queue_eval.core.errors import NoInputError
from queue_eval.core.naming import checked_run_id
from queue_eval.kubernetes import log_stream
from queue_eval.kubernetes.cluster import Cluster
from queue_eval.kubernetes.errors import BusyError
from queue_eval.kubernetes.queries import jobs_and_pods
from queue_eval.kubernetes.status import role_of
from queue_eval.report.escape import for_terminal


@click.command()
@click.argument("run_id")
@click.option(
    "--role", type=click.Choice(["worker", "producer", "finalizer", "driver", "abort"]), help="only these pods"
)
@click.option("--tail", type=click.IntRange(min=1), metavar="N", help="only the last N lines of each")
@click.option("-f", "--follow", is_flag=True, help="go on until the run's Jobs have ended, with pods that begin later")
@cluster_options
def command(
    run_id: str, role: str | None, tail: int | None, follow: bool, context: str | None, namespace: str | None
) -> int:
    """What the pods of RUN_ID print, each line with its pod's name."""
    where = cluster(context, namespace)
    jobs, pods = jobs_and_pods(where, checked_run_id(run_id))
    pods = [pod for pod in pods if role in (None, role_of(pod))]
    if not (jobs if follow else pods):
        raise NoInputError(f"run {run_id!r}: namespace {where.namespace} has no pods of it")
    if not follow:
        _written(where, [pod["metadata"]["name"] for pod in pods], tail)
        return 0
    for name, line in log_stream.lines(where, run_id, role, tail=tail, sleep=time.sleep):
        print_lines(f"{name}: {for_terminal(line)}")
    return 0


def _written(where: Cluster, names: list[str], tail: int | None) -> None:
    for name in names:
        try:
            for line in where.log(name, tail=tail).splitlines():
                print_lines(f"{name}: {for_terminal(line)}")
        except BusyError as error:
            print_notice(f"{name}: no log ({error})")
