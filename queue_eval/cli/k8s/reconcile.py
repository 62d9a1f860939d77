"""queue-eval k8s reconcile"""

import click

from queue_eval.cli.k8s.options import cluster, cluster_options
from queue_eval.cli.options import json_option
from queue_eval.cli.output import print_json, print_lines
from queue_eval.core.errors import UnavailableError
from queue_eval.core.naming import checked_run_id
from queue_eval.kubernetes import actions
from queue_eval.kubernetes.overview import look
from queue_eval.kubernetes.reconcile import Another, AnotherFinalizer, GiveUp


@click.command()
@click.argument("run_id")
@cluster_options
@json_option
def command(run_id: str, context: str | None, namespace: str | None, as_json: bool) -> int:
    """Hold the Jobs of RUN_ID against how the run itself stands, and start further workers, or the finalizer anew,
    where it needs them.
    """
    where, run_id = cluster(context, namespace), checked_run_id(run_id)
    view = look(where, run_id)
    decision = actions.reconcile(where, run_id, view.state, known_at_s=view.status.stats.now_s if view.status else 0.0)
    if isinstance(decision, GiveUp):
        raise UnavailableError(
            f"run {run_id!r}: {decision.why}; mend it, then queue-eval k8s scale {run_id} N {where.here} starts further"
            " workers"
        )
    started = {Another: "further workers started", AnotherFinalizer: "another finalizer started"}
    done = started.get(type(decision), "nothing to do")
    if as_json:
        print_json({"run_id": run_id, "decision": type(decision).__name__, "why": decision.why})
    else:
        print_lines(f"{done}: {decision.why}")
    return 0
