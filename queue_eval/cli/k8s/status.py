"""queue-eval k8s status"""

from dataclasses import asdict

import click

from queue_eval.cli.k8s.format import screen
from queue_eval.cli.k8s.options import cluster, cluster_options
from queue_eval.cli.options import json_option
from queue_eval.cli.output import print_json, print_lines
from queue_eval.core.naming import checked_run_id
from queue_eval.kubernetes.overview import look


@click.command()
@click.argument("run_id")
@cluster_options
@json_option
def command(run_id: str, context: str | None, namespace: str | None, as_json: bool) -> int:
    """How RUN_ID stands, by the API server alone: neither Redis nor the store need be reachable from here."""
    view = look(cluster(context, namespace), checked_run_id(run_id))
    if as_json:
        print_json({**asdict(view), "status": view.status.to_json() if view.status else {}, "state": view.state})
        return 0
    for line in screen(view):
        print_lines(line)
    return 0
