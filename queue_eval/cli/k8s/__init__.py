"""queue-eval k8s …"""

import click

from queue_eval.cli.commands import Commands

COMMANDS = {
    "render": "print the objects of a run, for kubectl or a look",
    "submit": "create them (safe to repeat)",
    "status": "one screen: the run, its accounting, workers, limiter, troubles",
    "wait": "until there is a verdict, and exit with it",
    "scale": "so many workers from now on",
    "logs": "what the pods of a run print",
    "reconcile": "start further workers where the run needs them",
    "cancel": "abort a run (what was scored stays)",
    "delete": "remove a run's objects from the cluster (its results stay)",
    "drive": "in a pod: produce, start workers, wait, finalize",
}


@click.group(cls=Commands, commands_of=COMMANDS, package="queue_eval.cli.k8s")
def command() -> None:
    """A run on a Kubernetes cluster, from the same eval.yaml.

    Namespace and context are kubectl's: KUBECONFIG or ~/.kube/config, in a pod its own account.
    """
