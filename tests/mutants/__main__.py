"""Puts each seeded defect into a copy of the working tree and sees its test fail: `python -m tests.mutants [NAME …]`.

    --share K/4   this share of them, and those in the files that the commits of the last day touch
    --outcome F   writes what was found

After `make test`: a test that fails without a defect catches every one.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.ci.share import Share, touched_lately
from tests.ci.suite import Outcome

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
AT_ONCE = 3  # most of them wait most of the time
TEST_TIMEOUT_S = 180
FAILED = 1  # pytest's exit code when tests failed, and not because it could not run


def seeded(mutant: dict[str, Any], folder: Path) -> None:
    """A copy with the defect in it. SystemExit when the code no longer has the place."""
    for name in ("queue_eval", "tests", "testkit", "loadtest", "k8s"):
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


def chosen(mutants: list[dict[str, Any]], names: list[str], share: Share) -> list[dict[str, Any]]:
    if names:
        return [m for m in mutants if m["name"] in names]
    touched = touched_lately() if share.of > 1 else set()
    return [m for m in mutants if share.holds(m["name"]) or touched & {edit["file"] for edit in m["edits"]}]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--share", type=Share.named, default=Share.named("all"))
    parser.add_argument("--outcome", type=Path)
    args = parser.parse_args()
    mutants = [m for file in sorted(HERE.glob("*.toml")) for m in tomllib.loads(file.read_text())["mutant"]]
    tried = chosen(mutants, args.names, args.share)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        first = list(pool.map(survived, tried))
    missed = []
    for mutant, why in zip(tried, first, strict=True):
        print(f"{'missed  ' if why else 'caught  '} {mutant['name']}: {mutant['file']} -k '{mutant['test']}'")
        if why:
            missed.append(mutant)
            print(why)
    # two others beside it may have kept the moment from coming that shows it; printed all the same, for such a test is a weak one
    survivors = [mutant["name"] for mutant in missed if _survived_alone(mutant)]
    print(f"{len(tried) - len(survivors)} of {len(tried)} seeded defects were caught")
    if args.outcome:
        Outcome(
            passed=len(tried) - len(survivors),
            failed=[f"not caught: {name}" for name in survivors],
            flaky=[f"caught alone only: {m['name']}" for m in missed if m["name"] not in survivors],
        ).write(args.outcome)
    return 1 if survivors or not tried else 0


def _survived_alone(mutant: dict[str, Any]) -> bool:
    why = survived(mutant)
    print(f"{'SURVIVED' if why else 'caught'} alone: {mutant['name']}" + (f"\n{why}" if why else ""))
    return why is not None


if __name__ == "__main__":
    sys.exit(main())
