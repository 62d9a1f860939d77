"""queue-eval k8s scale"""

import click

from queue_eval.cli.k8s.options import WORKERS, cluster, cluster_options
from queue_eval.cli.options import json_option
from queue_eval.cli.output import print_json, print_lines
from queue_eval.core.naming import checked_run_id
from queue_eval.kubernetes import actions


@click.command()
@click.argument("run_id")
@click.argument("workers", type=WORKERS)
@cluster_options
@json_option
def command(run_id: str, workers: int, context: str | None, namespace: str | None, as_json: bool) -> int:
    """From now on WORKERS pods work on RUN_ID. Those that leave finish or give back what they hold."""
    where = cluster(context, namespace)
    scaled = actions.scale(where, checked_run_id(run_id), workers)
    if as_json:
        facts = {"job": scaled.job, "parallelism": scaled.parallelism, "new": scaled.new, "followed": scaled.followed}
        print_json({"run_id": run_id, **facts, "requests": where.requests})
    elif scaled.new:
        print_lines(
            f"the earlier Job can no longer grow, because {scaled.because}; started {scaled.job} with"
            f" {scaled.parallelism}"
        )
    else:
        print_lines(f"{scaled.job}: parallelism {scaled.parallelism}")
    if not scaled.followed and not as_json:
        print_lines(
            f"no pod follows the run: when it is drained, queue-eval finalize {run_id} --store STORE --redis URL"
            " reports anew where both can be reached"
        )
    return 0
