"""What the objects of a run are called, and how they are found again."""

import re

from queue_eval.core.naming import checked_run_id

RUN_LABEL = "queue-eval.dev/run-id"
ROLE_LABEL = "queue-eval.dev/role"
COMMIT_ANNOTATION = "queue-eval.dev/commit"
JOB_NAME_LABEL = "batch.kubernetes.io/job-name"

CONTAINER = "queue-eval"  # of every pod of ours
FOLLOWERS = ("finalizer", "driver")  # roles that wait for the run's end; their logs hold how it stands

_WORKERS = re.compile(r"-workers(?:-(\d+))?$")


def run_name(run_id: str) -> str:
    """Of the ConfigMap that owns everything else of the run."""
    return f"qe-{checked_run_id(run_id)}"


def workers_name(run_id: str, number: int = 1) -> str:
    """A Job of workers that has succeeded once never grows again: the next one carries the next number."""
    return f"{run_name(run_id)}-workers" + (f"-{number}" if number > 1 else "")


def workers_number(job_name: str) -> int:
    """0 for a Job that is none of workers."""
    found = _WORKERS.search(job_name)
    return int(found[1] or 1) if found else 0


def producer_name(run_id: str) -> str:
    return f"{run_name(run_id)}-producer"


def finalizer_name(run_id: str) -> str:
    return f"{run_name(run_id)}-finalizer"


def abort_name(run_id: str) -> str:
    return f"{run_name(run_id)}-abort"


def selector(run_id: str, role: str | None = None) -> str:
    """A label selector."""
    return f"{RUN_LABEL}={checked_run_id(run_id)}" + (f",{ROLE_LABEL}={role}" if role else "")
