"""Puts each seeded defect into a copy of the working tree and sees its test fail: `python -m tests.mutants [NAME …]`.

After `make test`: a test that fails without a defect catches every one.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
AT_ONCE = 3  # most of them wait most of the time
TEST_TIMEOUT_S = 180
FAILED = 1  # pytest's exit code when tests failed, and not because it could not run


def seeded(mutant: dict[str, Any], folder: Path) -> None:
    """A copy with the defect in it. SystemExit when the code no longer has the place."""
    for name in ("queue_eval", "tests", "loadtest", "k8s"):
        shutil.copytree(ROOT / name, folder / name)  # with their times, so that the bytecode beside them is valid
    shutil.copy(ROOT / "pyproject.toml", folder)
    for edit in mutant["edits"]:
        path = folder / edit["file"]
        text = path.read_text()
        if text.count(edit["before"]) != 1:
            raise SystemExit(
                f"{mutant['name']}: {edit['file']} holds {text.count(edit['before'])} times {edit['before']!r}"
            )
        path.write_text(text.replace(edit["before"], edit["after"]))


def survived(mutant: dict[str, Any]) -> str | None:
    """Why the defect was not caught, or None."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name)
        seeded(mutant, folder)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-n", "0"]
        command += [mutant["file"], "-k", mutant["test"]]
        try:
            done = subprocess.run(
                command, cwd=folder, env={**os.environ, "PYTHONPATH": name}, capture_output=True, text=True, timeout=TEST_TIMEOUT_S, check=False
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"no end within {TEST_TIMEOUT_S} s"
    if done.returncode == FAILED and " failed" in done.stdout:
        return None
    return f"exit code {done.returncode}\n{done.stdout[-600:]}"


def main(names: list[str]) -> int:
    mutants = [m for file in sorted(HERE.glob("*.toml")) for m in tomllib.loads(file.read_text())["mutant"]]
    chosen = [m for m in mutants if not names or m["name"] in names]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        first = list(pool.map(survived, chosen))
    survivors = []
    for mutant, why in zip(chosen, first, strict=True):
        print(f"{'missed  ' if why else 'caught  '} {mutant['name']}: {mutant['file']} -k '{mutant['test']}'")
        if why:
            survivors.append(mutant)
            print(why)
    # two others beside it may have kept the moment from coming that shows it; said all the same, for such a test is a weak one
    survivors = [mutant for mutant in survivors if _survived_alone(mutant)]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} seeded defects were caught")
    return 1 if survivors or not chosen else 0


def _survived_alone(mutant: dict[str, Any]) -> bool:
    why = survived(mutant)
    print(f"{'SURVIVED' if why else 'caught'} alone: {mutant['name']}" + (f"\n{why}" if why else ""))
    return why is not None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
