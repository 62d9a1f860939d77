"""Puts the commit that a wheel or an sdist is built from into it, for `queue-eval --version`."""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WHERE = "queue_eval/COMMIT"


class CommitHook(BuildHookInterface[Any]):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """`version`: of the build target's format; an editable install asks git each time."""
        root = Path(self.root)
        if version == "editable" or (root / WHERE).exists():  # built from an sdist, which has the file
            return
        if commit := os.environ.get("QUEUE_EVAL_BUILD_COMMIT") or _head(root):
            file = Path(tempfile.mkdtemp(prefix="queue-eval-build-")) / "COMMIT"
            file.write_text(commit + "\n")
            build_data["force_include"][str(file)] = WHERE


def _head(root: Path) -> str:
    if not (root / ".git").exists():
        return ""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)  # noqa: S607
    return done.stdout.strip()
