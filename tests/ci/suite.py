"""A call of pytest whose failures are tried once more, alone. What passes then is flaky, which is listed and fails nothing.

python -m tests.ci.suite [--outcome FILE] [PYTEST OPTION …]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from testkit.measured import ROOT

NOTHING_CHOSEN = 5  # pytest's exit code
MOST_TRIED_AGAIN = 10  # where more fail, something is broken that no second try mends


@dataclass(slots=True)
class Outcome:
    passed: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)
    flaky: list[str] = field(default_factory=list)

    def add(self, other: "Outcome") -> None:
        self.passed += other.passed
        self.skipped += other.skipped
        self.failed += other.failed
        self.flaky += other.flaky

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "Outcome":
        return cls(**json.loads(path.read_text()))


@dataclass(slots=True)
class _Session:
    """One call of pytest, by the names of its tests."""

    passed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)  # of pytest itself, which no test names


def run_suite(arguments: Sequence[str]) -> Outcome:
    """Run pytest, and what failed once more. A test is flaky only where the second call names it as passed."""
    flaky: list[str] = []
    with tempfile.TemporaryDirectory(prefix="suite-") as folder:
        first = _pytest(arguments, Path(folder))
        trouble = first.trouble
        if not trouble and 0 < len(first.failed) <= MOST_TRIED_AGAIN:
            print("once more, alone, what has failed:", flush=True)
            second = _pytest([*arguments, "--last-failed", "-n", "0"], Path(folder))
            flaky = [test for test in first.failed if test in second.passed and test not in second.failed]
            trouble = second.trouble
    return Outcome(
        passed=len(first.passed) + len(flaky),
        skipped=len(first.skipped),
        failed=[test for test in first.failed if test not in flaky] + trouble,
        flaky=flaky,
    )


def _pytest(arguments: Sequence[str], folder: Path) -> _Session:
    found = folder / "junit.xml"
    found.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-o", f"cache_dir={folder / 'cache'}", f"--junitxml={found}", *arguments]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    whole = found.exists()
    session = _read(found) if whole else _Session()
    if not whole or (code not in (0, NOTHING_CHOSEN) and not session.failed):
        # killed, or an error of its own
        session.trouble.append(f"pytest {' '.join(arguments)}: exit code {code}")
    return session


def _read(path: Path) -> _Session:
    session = _Session()
    for case in ET.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            if name not in session.failed:  # one of the test, one of its teardown
                session.failed.append(name)
        elif case.find("skipped") is not None:
            session.skipped.append(name)
        else:
            session.passed.append(name)
    return session


def options(arguments: list[str]) -> tuple[Path | None, list[str]]:
    """Where the outcome is to be written, and the rest, which is pytest's."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--outcome", type=Path)
    ours, rest = parser.parse_known_args(arguments)
    return ours.outcome, rest


def main(arguments: list[str]) -> int:
    file, rest = options(arguments)
    outcome = run_suite(rest)
    for test in outcome.flaky:
        print(f"flaky, failed and then passed: {test}")
    if file:
        outcome.write(file)
    return bool(outcome.failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
