"""Which commit a run evaluates: from CI's variables, else from git."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

_VARIABLES = (
    "QUEUE_EVAL_COMMIT_SHA",
    "GITHUB_SHA",
    "CI_COMMIT_SHA",
    "BUILDKITE_COMMIT",
    "CIRCLE_SHA1",
    "GIT_COMMIT",
    "BITBUCKET_COMMIT",
    "BUILD_SOURCEVERSION",
)


def commit_sha(environment: Mapping[str, str], folder: Path) -> str | None:
    for name in _VARIABLES:
        if environment.get(name):
            return environment[name]
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607 - the user's own git
            cwd=folder if folder.is_dir() else None,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None
