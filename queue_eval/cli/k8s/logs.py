"""queue-eval k8s logs"""

import threading
from typing import Any

import click

from queue_eval.cli.k8s.options import cluster, cluster_options
from queue_eval.cli.say import say, say_notice
from queue_eval.core.errors import NoInputError, QueueEvalError
from queue_eval.core.naming import checked_run_id
from queue_eval.kubernetes.cluster import BusyError, Cluster
from queue_eval.kubernetes.listing import jobs_and_pods
from queue_eval.kubernetes.seen import role_of
from queue_eval.report.escape import for_terminal

MOST_FOLLOWED = 50  # each takes a connection


@click.command()
@click.argument("run_id")
@click.option(
    "--role", type=click.Choice(["worker", "producer", "finalizer", "driver", "abort"]), help="only these pods"
)
@click.option("--tail", type=click.IntRange(min=1), metavar="N", help="only the last N lines of each")
@click.option("-f", "--follow", is_flag=True, help="go on until the pods end")
@cluster_options
def command(
    run_id: str, role: str | None, tail: int | None, follow: bool, context: str | None, namespace: str | None
) -> int:
    """What the pods of RUN_ID print, each line with its pod's name."""
    where = cluster(context, namespace)
    _, pods = jobs_and_pods(where, checked_run_id(run_id))
    pods = [pod for pod in pods if role in (None, role_of(pod))]
    if not pods:
        raise NoInputError(f"run {run_id!r}: namespace {where.namespace} has no pods of it")
    names = [pod["metadata"]["name"] for pod in pods]
    if not follow:
        for name in names:
            try:
                for line in where.log(name, tail=tail).splitlines():
                    say(f"{name}: {for_terminal(line)}")
            except BusyError as error:
                say_notice(f"{name}: no log ({error})")
        return 0
    if len(names) > MOST_FOLLOWED:
        raise NoInputError(f"{len(names)} pods are more than {MOST_FOLLOWED} to follow at once; name a --role")
    threads = [threading.Thread(target=_follow, args=(where, name), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0


def _follow(where: Cluster, name: str) -> Any:
    try:
        for line in where.follow_log(name):
            say(f"{name}: {for_terminal(line)}")
    except QueueEvalError as error:
        # one pod that has not begun, or is gone, must not end the others' lines
        say(f"{name}: no log ({for_terminal(str(error))})")
