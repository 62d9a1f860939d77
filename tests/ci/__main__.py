"""What `.ci/run` runs, once it has installed what that needs: `python -m tests.ci [--all] [--share K/4]`.

Every call runs the quick suites, the core of the tests on a cluster, and the seeded defects in the files that the last commits
touch. Of the rest it runs one quarter, by the commit's place in the history. The last lines list what failed, and what passed only
when it was tried again.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from testkit.measured import ROOT
from tests.ci.share import Share, head, number_of_head
from tests.ci.suite import Outcome

PYTHON = sys.executable
MOST_LINES = 10  # of the end
LONGEST_LINE = 160


class Log:
    """The steps of one call, as they go on; at the end what came of them."""

    def __init__(self, folder: Path, *, since_s: float) -> None:
        self._folder = folder
        self._started_at = time.monotonic() - since_s
        self.outcome = Outcome()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started_at

    def log_line(self, title: str) -> None:
        print(f"\n== {title} ({self.seconds:.0f}s)", flush=True)

    def step(self, title: str, *command: str) -> None:
        """Run what passes or fails as a whole."""
        self.log_line(title)
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            self.outcome.failed.append(title)
        else:
            self.outcome.passed += 1

    def suite(self, title: str, *command: str) -> None:
        """Run what writes its outcome, test by test."""
        self.log_line(title)
        written = self._folder / "suite.json"
        self._add(title, subprocess.run([*command, *_outcome(command, written)], cwd=ROOT, check=False), written)

    @contextmanager
    def beside(self, title: str, *command: str) -> Iterator[None]:
        """Run a suite while the block runs, after everything else of this machine, and print its output afterwards."""
        written, output = self._folder / "beside.json", self._folder / "beside.log"
        self.log_line(f"{title}: begun, beside what follows")
        with output.open("w") as log:
            process = subprocess.Popen(
                ["nice", *command, *_outcome(command, written)], cwd=ROOT, stdout=log, stderr=log
            )
        try:
            yield
        finally:
            process.wait()
            self.log_line(title)
            print(output.read_text(), flush=True)
            self._add(title, process, written)

    def _add(
        self, title: str, ended: "subprocess.CompletedProcess[bytes] | subprocess.Popen[bytes]", written: Path
    ) -> None:
        outcome = Outcome.read(written) if written.exists() else Outcome()
        if ended.returncode and not outcome.failed:
            outcome.failed.append(f"{title}: exit code {ended.returncode}")
        outcome.failed = [f"{title}: {test}" for test in outcome.failed]
        self.outcome.add(outcome)
        written.unlink(missing_ok=True)


def _outcome(command: Sequence[str], file: Path) -> list[str]:
    return [f"OUTCOME={file}"] if command[0] == "make" else ["--outcome", str(file)]


def last_lines(outcome: Outcome) -> list[str]:
    """Ten at most; the plain sum is the last one."""
    lines = [f"FAILED {test}" for test in outcome.failed] + [
        f"flaky (passed when tried again) {test}" for test in outcome.flaky
    ]
    if len(lines) > MOST_LINES - 2:
        lines = [*lines[: MOST_LINES - 3], f"and {len(lines) - MOST_LINES + 3} more"]
    count = f"{len(outcome.flaky)} flaky of {outcome.passed + len(outcome.failed)}"
    plain = f"{outcome.passed} passed, {len(outcome.failed)} failed, {outcome.skipped} skipped"
    return [line[:LONGEST_LINE] for line in [*lines, count, plain]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="nothing is left for another turn")
    parser.add_argument("--share", type=Share.named, help="another share than the commit's")
    parser.add_argument("--since", type=float, default=0.0, help="seconds that the installation took")
    args = parser.parse_args()
    share = Share.named("all") if args.all else args.share or Share.of_commit(number_of_head())
    with tempfile.TemporaryDirectory(prefix="ci-") as folder:
        log = Log(Path(folder), since_s=args.since)
        print(f"commit {head()[:12]}: of what takes turns, {share} (make ci-all: everything)", flush=True)
        _run(log, share)
        log.log_line("the end")
    print("\n".join(last_lines(log.outcome)), flush=True)
    return bool(log.outcome.failed)


def _run(log: Log, share: Share) -> None:
    if shutil.which("go"):
        log.step("a second S3 server", ".ci/versitygw")
    else:
        log.log_line("no Go on this machine: without a second S3 server")
    log.step("make run: the demo, with nothing but Python", "make", "run")
    log.step("format, lint, types, import contracts", "make", "check")
    log.step("the wheel and the sdist, as they are published", ".ci/distributions")
    log.step("the workflows and the examples", ".ci/workflows")
    log.step("the site of the docs", "make", "docs")
    log.step("the manifests and the Dockerfile, without a cluster", ".ci/manifests")
    log.suite("make test", "make", "test", f"THOROUGH={share}")
    log.step(
        "a run in a short storm", PYTHON, "-m", "loadtest.chaos", "--cases", "150", "--workers", "3", "--kills", "10"
    )
    with log.beside("seeded defects", PYTHON, "-m", "tests.mutants", "--share", str(share)):
        log.suite(
            "whole runs on a real Kubernetes", PYTHON, "-m", "tests.cluster", "--thorough", str(share), "--durations=10"
        )


if __name__ == "__main__":
    sys.exit(main())
