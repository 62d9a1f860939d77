"""queue-eval k8s delete"""

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
    """Remove the objects of RUN_ID from the cluster. Its results and report stay in the store."""
    gone = actions.delete(cluster(context, namespace), checked_run_id(run_id))
    if as_json:
        print_json({"run_id": run_id, "deleted": gone})
    else:
        for name in gone:
            print_lines(f"deleted {name}")
    return 0
