"""queue-eval k8s cancel"""

import click

from queue_eval.cli.k8s.options import cluster, cluster_options
from queue_eval.cli.options import json_option
from queue_eval.cli.output import print_json, print_lines
from queue_eval.core.naming import checked_run_id
from queue_eval.kubernetes import actions


@click.command()
@click.argument("run_id")
@cluster_options
@json_option
def command(run_id: str, context: str | None, namespace: str | None, as_json: bool) -> int:
    """Abort RUN_ID: a pod of its own marks it ABORTED, workers release what they hold and leave with 65.

    Nothing is deleted.
    """
    where = cluster(context, namespace)
    name = actions.cancel(where, checked_run_id(run_id))
    if as_json:
        print_json({"run_id": run_id, "job": name})
    else:
        print_lines(
            f"{name} aborts the run; what was scored stays in the store, and the finalizer reports it as inconclusive"
        )
        print_lines(f"next: queue-eval k8s wait {run_id} {where.here}")
    return 0
