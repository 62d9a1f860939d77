"""Lines of a log: one event each, and nothing from the prompts."""

import io
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from queue_eval.cli import main
from queue_eval.cli.logs import frames, log_json_lines
from queue_eval.cli.output import OutputClosedError, print_defect
from queue_eval.cli.report_output import print_report
from testkit.command import python_path
from testkit.measured import ROOT

if TYPE_CHECKING:
    from queue_eval.core.report import Report


def test_an_error_names_where_it_came_from_and_not_what_it_repeats(capsys: pytest.CaptureFixture[str]) -> None:
    log_json_lines(run_id="r")
    try:
        try:
            int("PROMPT")
        except ValueError as error:
            raise RuntimeError from error
    except RuntimeError:
        logging.getLogger("queue_eval.worker").exception("crashed", extra={"event": "crashed", "case_id": "c"})
    (line,) = capsys.readouterr().err.splitlines()
    body = json.loads(line)
    assert (body["event"], body["run_id"], body["case_id"]) == ("crashed", "r", "c")
    assert body["traceback"].index("ValueError") < body["traceback"].index("RuntimeError")
    assert "test_logs.py" in body["traceback"]
    assert "invalid literal" not in body["traceback"]


def test_in_a_pod_an_error_of_use_is_a_line_of_the_log_too(tmp_path: Path) -> None:
    pod = {"RUN_ID": "r", "POD_NAME": "p", "JOB_NAME": "j", "QUEUE_EVAL_COMMIT_SHA": "c"}
    done = subprocess.run(
        [sys.executable, "-m", "queue_eval", "validate", "no\nsuch.yaml"], env=os.environ | pod, capture_output=True, text=True, check=False, cwd=tmp_path
    )  # fmt: skip
    bodies = [json.loads(line) for line in done.stderr.splitlines()]
    assert (done.returncode, {body["event"] for body in bodies}) == (66, {"error"})
    assert bodies[0]["message"].startswith("queue-eval: no")
    assert [bodies[0][name] for name in ("run_id", "pod", "job", "commit")] == ["r", "p", "j", "c"]


def test_in_a_pod_a_defect_of_ours_is_a_line_without_its_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POD_NAME", "p")
    print_defect(ValueError("PROMPT"))
    body = json.loads(capsys.readouterr().err)
    assert ("defect of queue-eval" in body["message"], body["traceback"]) == (True, "ValueError")


def test_an_exit_code_of_other_code_is_never_ours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaves(**_: object) -> None:
        raise SystemExit(0)

    monkeypatch.setattr(main.group, "main", leaves)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # this process has more to do
    with pytest.raises(SystemExit) as left:
        main.main()
    assert (left.value.code, "called sys.exit" in capsys.readouterr().err) == (70, True)


def test_a_process_that_has_reported_how_it_ended_is_not_killed_on_the_way_out(tmp_path: Path) -> None:
    """The interpreter's own end takes a while: a SIGTERM there would make a death of a run that is drained."""
    (tmp_path / "slow_to_end.py").write_text(
        "import atexit, os, signal\natexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import slow_to_end, sys; sys.argv = ['q', '--version']; import runpy; runpy.run_module('queue_eval', run_name='__main__')"],
        env={**os.environ, "PYTHONPATH": python_path(tmp_path)},
        capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0


def test_a_reader_that_leaves_is_no_verdict() -> None:
    """Click would exit with 1, which is a failed gate."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "queue_eval", "--help"], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (74, b"")


def test_a_reader_of_the_verdict_that_leaves_is_no_exit_of_a_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library that colours it would exit with 1."""

    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Gone())
    with pytest.raises(OutputClosedError):
        print_report(
            cast("Report", SimpleNamespace(verdict="fail", judge={}, lacks_scores=False, run_id="r")),
            "runs",
            as_json=False,
        )


@pytest.mark.parametrize("module", ["click", "pydantic"])
def test_a_program_that_cannot_be_imported_is_no_verdict(tmp_path: Path, module: str) -> None:
    (tmp_path / f"{module}.py").write_text("raise ImportError('another of that name')")
    done = subprocess.run(
        [sys.executable, "-m", "queue_eval", "finalize", "r"],
        env={**os.environ, "PYTHONPATH": python_path(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "another of that name" in done.stderr) == (70, True), done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_raised_from_itself_is_reported_once() -> None:
    error = ValueError("PROMPT")
    error.__cause__ = error
    assert frames(error) == "ValueError"


def test_without_a_reader_of_errors_their_code_stands_all_the_same(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "queue_eval", "nosuch"], stdout=write, stderr=write, check=False, cwd=tmp_path
    )
    os.close(write)
    assert done.returncode == 64


def test_every_text_file_names_its_encoding() -> None:
    """The locale's is another on each machine."""
    bare = re.compile(r"\.(read_text|write_text)\((?!.*encoding=)|\.open\(\"[rwa]t?\+?\"\)|\.open\(\)")
    found = [
        f"{path}:{number}"
        for path in (ROOT / "queue_eval").rglob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if bare.search(line)
    ]
    assert found == []
