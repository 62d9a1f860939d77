"""What the commands print: for people, or JSON for programs."""

import json
import os
import re
import shutil
import sys
import time
import traceback
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from queue_eval.cli.logs import frames, json_line, of_the_pod
from queue_eval.report.escape import for_terminal


def print_lines(text: str) -> None:
    """Lines on standard output; what a file's or an answer's words would do to a terminal they do not."""
    sys.stdout.write("\n".join(map(for_terminal, text.split("\n"))) + "\n")
    sys.stdout.flush()


def clear_lines(lines: Sequence[str]) -> None:
    """Clear the lines that stand above a terminal's cursor, each in as many rows as it takes there."""
    columns, height = shutil.get_terminal_size()
    rows = sum(max(1, -(-_width(for_terminal(line)) // columns)) for line in lines)
    sys.stdout.write(f"\x1b[{min(rows, height - 1)}F\x1b[J")


def _width(text: str) -> int:
    """Return how many of a terminal's columns the text takes."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def print_json(body: Mapping[str, Any]) -> None:
    print_lines(json.dumps({**body, **of_the_pod()}, ensure_ascii=True))


def print_error(message: str) -> None:
    """One line per fault, on standard error, each with our name in front."""
    try:
        for line in message.splitlines():
            _tell("error", f"queue-eval: {line}")
    except BrokenPipeError:
        unread(sys.stderr)  # the exit code is left


def print_defect(error: Exception) -> None:
    """A traceback; in a pod without its words, for a log has more readers than a terminal."""
    said = "queue-eval: this is a defect of queue-eval; please report it with"
    if of_the_pod():
        _tell("error", f"{said} this line", traceback=frames(error))
        return
    sys.stderr.write("".join(traceback.format_exception(error)) + "\n")
    _tell("error", f"{said} the lines above")


def unread(stream: TextIO) -> None:
    """Its reader has left: what the interpreter still writes to it at the end goes nowhere, and is no error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_notice(text: str) -> None:
    """Something to know, on standard error: programs read the other one."""
    _tell("notice", text)


def _tell(level: str, text: str, **more: str) -> None:
    """On standard error, which of a pod is a log: JSON lines."""
    pod = of_the_pod()
    line = json_line(time.time(), level, text, event=level, **pod, **more) if pod else for_terminal(text)
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def shell_quoted(word: str | os.PathLike[str]) -> str:
    text = str(word)
    return text if re.fullmatch(r"[\w./:@%+=,-]+", text) else "'" + text.replace("'", "'\\''") + "'"
