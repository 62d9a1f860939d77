"""Options that the commands on a cluster share, and what they lead to."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from queue_eval.kubernetes.cluster import Cluster, connect

F = TypeVar("F", bound=Callable[..., Any])


def cluster_options(function: F) -> F:
    function = click.option("--context", metavar="C", help="of the kubeconfig  [default: its current one]")(function)
    return click.option("-n", "--namespace", metavar="NS", help="[default: the context's]")(function)


WORKERS = click.IntRange(0, 10_000)
workers_option = click.option("--workers", type=WORKERS, metavar="N", help="pods of workers  [default: the file's]")


def cluster(context: str | None, namespace: str | None) -> Cluster:
    return connect(context, namespace)
