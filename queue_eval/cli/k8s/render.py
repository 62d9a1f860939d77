"""queue-eval k8s render"""

import click
import yaml

from queue_eval.cli.inputs import run_id_or_new
from queue_eval.cli.k8s.options import workers_option
from queue_eval.cli.k8s.planned import planned
from queue_eval.cli.output import print_lines
from queue_eval.kubernetes import jobs


@click.command()
@click.argument("eval_yaml")
@click.option("--run-id", metavar="R", help="[default: by date and time]")
@click.option("--dataset", metavar="FILE", help="other cases than the file's")
@workers_option
@click.option(
    "--commit", metavar="SHA", help="of the annotations, or '' to leave it out  [default: CI's variables, else git]"
)
def command(eval_yaml: str, run_id: str | None, dataset: str | None, workers: int | None, commit: str | None) -> int:
    """Print what `submit` would create for the run of EVAL_YAML, as YAML. No cluster is asked."""
    plan = planned(eval_yaml, run_id_or_new(run_id), dataset, commit=commit)
    bodies = [jobs.config_map(plan), jobs.finalizer(plan), jobs.producer(plan), jobs.workers(plan, parallelism=workers)]
    print_lines(yaml.safe_dump_all(bodies, sort_keys=False, width=140).rstrip())
    return 0
