"""`--version` names the commit: of a checkout, of a wheel, and of neither."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from queue_eval import build_commit as module
from testkit.measured import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def asked(folder: Path) -> str:
    """In an interpreter that finds nothing but a copy of the module."""
    (folder / "queue_eval").mkdir(exist_ok=True)
    shutil.copy(ROOT / "queue_eval" / "build_commit.py", folder / "queue_eval")
    code = "from queue_eval.build_commit import build_commit; print(build_commit())"
    command = [sys.executable, "-S", "-c", code]
    bare = {"PATH": os.environ["PATH"]}  # no PYTHONPATH that leads to ours
    return subprocess.run(command, cwd=folder, env=bare, capture_output=True, text=True, check=True).stdout.strip()


def test_a_wheel_knows_the_commit_that_it_was_built_from(tmp_path: Path) -> None:
    (tmp_path / "queue_eval").mkdir()
    (tmp_path / "queue_eval" / "COMMIT").write_text(COMMIT + "\n")
    assert asked(tmp_path) == COMMIT


def test_a_folder_of_another_project_is_not_asked(tmp_path: Path) -> None:
    """What is installed into a virtual environment often lies in a checkout of another project."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    site = tmp_path / "venv" / "site-packages"
    site.mkdir(parents=True)
    assert asked(site) == "unknown"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no checkout")
def test_a_checkout_names_its_head() -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert module.build_commit() == head.strip()
