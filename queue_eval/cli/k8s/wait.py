"""queue-eval k8s wait"""

import time

import click

from queue_eval.cli.k8s.format import VERDICTS, status_line
from queue_eval.cli.k8s.options import cluster, cluster_options
from queue_eval.cli.options import SECONDS, json_option
from queue_eval.cli.output import print_json, print_lines, print_notice
from queue_eval.core.naming import checked_run_id
from queue_eval.core.status_line import StatusLine
from queue_eval.kubernetes.cluster import Cluster
from queue_eval.kubernetes.waiting import RunWait
from queue_eval.report.escape import for_terminal

blocked_option = click.option(
    "--blocked-timeout",
    "blocked_s",
    type=SECONDS,
    default=30.0,
    show_default=True,
    metavar="TIME",
    help="give up when nothing could go on for this long. The run stays as it is",
)


@click.command()
@click.argument("run_id")
@blocked_option
@cluster_options
@json_option
def command(run_id: str, blocked_s: float, context: str | None, namespace: str | None, as_json: bool) -> int:
    """Wait for the verdict of RUN_ID and exit with it: 0 passed, 1 failed, 2 inconclusive."""
    return waited(cluster(context, namespace), checked_run_id(run_id), blocked_s=blocked_s, as_json=as_json)


def waited(where: Cluster, run_id: str, *, blocked_s: float, as_json: bool) -> int:
    def notice(text: str) -> None:
        if as_json:
            print_json({"event": "notice", "text": text})
        else:
            print_notice(text)

    def show(status: StatusLine) -> None:
        if as_json:
            print_json({"event": "status", **status.to_json()})
        else:
            print_notice(status_line(status))

    wait = RunWait(where, run_id, notice=notice, show=show, blocked_s=blocked_s, sleep=time.sleep, now=time.monotonic)
    code = wait.verdict()
    facts = {"verdict": VERDICTS[code], "exit_code": code, "requests": where.requests}
    if as_json:
        print_json({"event": "verdict", "run_id": run_id, **facts, "reasons": wait.reasons})
    else:
        print_lines(f"verdict: {VERDICTS[code]}")
        for reason in wait.reasons:
            print_lines(f"  {for_terminal(reason)}")
        print_lines(f"next: queue-eval k8s status {run_id} {where.here}")
    return code
