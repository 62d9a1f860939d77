"""What `.ci/run` leaves for another turn, and what it prints of a test that fails once."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from testkit.measured import ROOT
from tests.ci.__main__ import LONGEST_LINE, MOST_LINES, last_lines
from tests.ci.share import Share
from tests.ci.suite import Outcome

NAMES = [f"tests/x.py::test_{n}" for n in range(400)]


def test_four_shares_hold_everything_once() -> None:
    shares = [Share.named(f"{k}/4") for k in (1, 2, 3, 4)]
    assert [sum(share.holds(name) for share in shares) for name in NAMES] == [1] * 400
    assert all(70 <= sum(map(share.holds, NAMES)) <= 130 for share in shares)


def test_all_holds_everything_and_none_nothing() -> None:
    assert all(map(Share.named("all").holds, NAMES))
    assert not any(map(Share.named("none").holds, NAMES))


def test_four_commits_in_a_row_come_to_every_share() -> None:
    assert {str(Share.of_commit(n)) for n in range(1637, 1641)} == {"1/4", "2/4", "3/4", "4/4"}


@pytest.mark.parametrize("text", ["0/4", "5/4", "x", "1/0", ""])
def test_another_word_is_no_share(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - int's own words, or ours
        Share.named(text)


def suite_of(folder: Path, tests: str) -> tuple[int, Outcome, str]:
    (folder / "test_it.py").write_text(tests)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "tests.ci.suite", "--outcome", str(folder / "out"), str(folder), "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, Outcome.read(folder / "out"), done.stdout + done.stderr


FLAKY = """
from pathlib import Path
def test_good(): pass
def test_sometimes():
    marker = Path(__file__).with_name("tried")
    tried = marker.exists()
    marker.touch()
    assert tried
"""


def test_what_fails_and_then_passes_is_flaky_and_fails_nothing(tmp_path: Path) -> None:
    code, outcome, printed = suite_of(tmp_path, FLAKY)
    assert (code, outcome.failed, outcome.passed) == (0, [], 2), printed
    assert [test.rpartition("::")[2] for test in outcome.flaky] == ["test_sometimes"]
    assert "flaky, failed and then passed: " in printed


@pytest.mark.thorough
def test_what_fails_twice_has_failed(tmp_path: Path) -> None:
    code, outcome, printed = suite_of(tmp_path, FLAKY + "\ndef test_never(): assert False\n")
    assert code == 1, printed
    assert [test.rpartition("::")[2] for test in outcome.failed] == ["test_never"]
    assert [test.rpartition("::")[2] for test in outcome.flaky] == ["test_sometimes"]
    assert outcome.passed == 2


@pytest.mark.thorough
def test_a_suite_that_cannot_be_collected_has_failed(tmp_path: Path) -> None:
    code, outcome, printed = suite_of(tmp_path, "import nothing_of_this_name")
    assert code == 1, printed
    assert outcome.failed


@pytest.mark.thorough
def test_a_suite_whose_process_dies_has_failed(tmp_path: Path) -> None:
    code, outcome, printed = suite_of(tmp_path, "import os\ndef test_it(): os._exit(0)")
    assert code == 1, printed
    assert "exit code" in outcome.failed[0]


def test_the_last_lines_are_ten_and_end_with_the_plain_sum() -> None:
    lines = last_lines(Outcome(passed=7, skipped=2, failed=["x" * 500] * 30, flaky=["y"]))
    assert len(lines) == MOST_LINES
    assert max(map(len, lines)) <= LONGEST_LINE
    assert lines[-1] == "7 passed, 30 failed, 2 skipped"
    assert last_lines(Outcome(passed=7, flaky=["y"])) == ["flaky (passed when tried again) y", "1 flaky of 7", "7 passed, 0 failed, 0 skipped"]  # fmt: skip


@pytest.mark.thorough
def test_a_pytest_that_was_killed_is_not_tried_again(tmp_path: Path) -> None:
    """No test is reported as failed, so the second try would be all of them."""
    code, outcome, printed = suite_of(
        tmp_path,
        """
import os
from pathlib import Path
def test_good():
    with Path(__file__).with_name("runs").open("a") as runs: runs.write("x")
def test_killer(): os._exit(137)
""",
    )
    assert code == 1, printed
    assert (tmp_path / "runs").read_text() == "x"
    assert (len(outcome.failed), outcome.flaky) == (1, [])


@pytest.mark.thorough
def test_a_second_try_that_dies_excuses_no_failure(tmp_path: Path) -> None:
    code, outcome, printed = suite_of(
        tmp_path,
        """
import os
from pathlib import Path
def test_that_fails_and_then_ends_pytest():
    marker = Path(__file__).with_name("tried")
    if marker.exists(): os._exit(3)
    marker.touch()
    assert False
""",
    )
    assert code == 1, printed
    assert outcome.flaky == []
    assert outcome.failed[0].endswith("::test_that_fails_and_then_ends_pytest")
    assert outcome.failed[1].endswith(": exit code 3")


def test_every_seeded_defect_has_its_place_in_the_code() -> None:
    """Found here, and not after everything else has run."""
    lost = [
        f"{mutant['name']}: {edit['file']}"
        for file in sorted((ROOT / "tests" / "mutants").glob("*.toml"))
        for mutant in tomllib.loads(file.read_text())["mutant"]
        for edit in mutant["edits"]
        if (ROOT / edit["file"]).read_text().count(edit["before"]) != 1
    ]
    assert lost == []


def test_every_seeded_defect_names_a_file_of_tests() -> None:
    named = {
        mutant["file"]
        for file in (ROOT / "tests" / "mutants").glob("*.toml")
        for mutant in tomllib.loads(file.read_text())["mutant"]
    }
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []
