"""Run ids: short, safe as a file name, a Redis key, a Kubernetes name and an RQ job id."""

import re

from queue_eval.core.errors import UsageError

_RUN_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?")


def checked_run_id(run_id: str) -> str:
    """The run id itself, or UsageError: 1 to 48 of a-z, 0-9 and inner hyphens."""
    if not _RUN_ID.fullmatch(run_id):
        raise UsageError(
            f"run id {run_id[:80]!r}: use 1 to 48 lower-case letters, digits and inner hyphens, for example"
            " nightly-2026-11-24"
        )
    return run_id
