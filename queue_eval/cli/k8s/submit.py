"""queue-eval k8s submit"""

import click

from queue_eval.cli.inputs import run_id_or_new
from queue_eval.cli.k8s.options import cluster, cluster_options, workers_option
from queue_eval.cli.k8s.planned import planned
from queue_eval.cli.k8s.wait import blocked_option, waited
from queue_eval.cli.options import json_option
from queue_eval.cli.output import print_json, print_lines
from queue_eval.kubernetes import actions
from queue_eval.kubernetes.names import workers_name


@click.command()
@click.argument("eval_yaml")
@click.option("--run-id", metavar="R", help="a name for the run  [default: by date and time]")
@click.option("--dataset", metavar="FILE", help="other cases than the file's")
@workers_option
@click.option("--wait", is_flag=True, help="until there is a verdict, and exit with it")
@blocked_option
@cluster_options
@json_option
def command(
    eval_yaml: str,
    run_id: str | None,
    dataset: str | None,
    workers: int | None,
    wait: bool,
    blocked_s: float,
    context: str | None,
    namespace: str | None,
    as_json: bool,
) -> int:
    """Create the run of EVAL_YAML in the cluster. Safe to repeat: it finds its own objects."""
    plan = planned(eval_yaml, run_id_or_new(run_id), dataset)
    where = cluster(context, namespace)
    created = actions.submit(where, plan, workers=workers)
    if as_json:
        facts = {"run_id": plan.run_id, "namespace": where.namespace, "created": created, "requests": where.requests}
        print_json({"event": "submitted", **facts})
    else:
        for name, is_new in created.items():
            print_lines(f"{name} {'created' if is_new else 'is there already'}")
        if workers is not None and not created[workers_name(plan.run_id)]:
            print_lines(
                f"--workers is for a new Job of workers: queue-eval k8s scale {plan.run_id} {workers} {where.here}"
                " changes one that stands"
            )
    if wait:
        return waited(where, plan.run_id, blocked_s=blocked_s, as_json=as_json)
    if not as_json:
        print_lines(
            f"next: queue-eval k8s status {plan.run_id} {where.here}, or queue-eval k8s wait {plan.run_id} {where.here}"
        )
    return 0
