"""The commit that this queue-eval was built from."""

import subprocess
from pathlib import Path

_PACKAGE = Path(__file__).parent


def build_commit() -> str:
    """Return the commit that the wheel was built from, of a checkout its HEAD; "unknown" where neither is known."""
    try:
        return (_PACKAGE / "COMMIT").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return _head() or "unknown"


def _head() -> str:
    if not (_PACKAGE.parent / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607 - the user's own git
            cwd=_PACKAGE,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
