"""docs/tutorial.md, block by block, as a reader types it."""

import re
import subprocess
from pathlib import Path

from testkit.command import environment
from testkit.measured import ROOT


def test_the_tutorial_does_what_it_describes(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "tutorial.md").read_text(), re.DOTALL)
    codes = [typed(block, tmp_path) for block in blocks]
    assert codes == [0, 0, 0, 1]
    # as in its third part, the worst case of the first run is the invented answer
    summary = (tmp_path / "my-eval/runs/first/summary.md").read_text()
    assert summary.index("| express |") < summary.index("</details>")
    assert "Faithfulness pass rate" in (tmp_path / "my-eval/runs/second/report.json").read_text()


def typed(block: str, folder: Path) -> int:
    done = subprocess.run(
        ["bash", "-e", "-c", block], cwd=folder, env=environment(PYTHONPATH=str(ROOT)), capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    return done.returncode
