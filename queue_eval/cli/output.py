"""What the commands print: for people, or JSON for programs."""

import json
import os
import re
import shutil
import sys
import time
import traceback
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from queue_eval.cli.logs import frames, json_line, of_the_pod
from queue_eval.report.escape import for_terminal
from queue_eval.standard_streams import unread


class OutputClosedError(Exception):
    """Standard output takes nothing more: its reader has left, which is no reason for words, or its disk is full."""


@contextmanager
def writing_output() -> Iterator[None]:
    """OutputClosedError where what is printed here cannot be written."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise OutputClosedError from error
    except OSError as error:
        raise OutputClosedError(error.strerror or str(error)) from error


def print_lines(text: str) -> None:
    """Lines on standard output; what a file's or an answer's words would do to a terminal they do not."""
    with writing_output():
        sys.stdout.write("\n".join(map(for_terminal, text.split("\n"))) + "\n")


def clear_lines(lines: Sequence[str]) -> None:
    """Clear the lines that stand above a terminal's cursor, each in as many rows as it takes there."""
    sys.stdout.write(f"\x1b[{_rows(lines)}F\x1b[J")


def fitting(lines: Sequence[str]) -> list[str]:
    """Return the first of the lines, as many as can be cleared again: what has left a terminal at its top cannot."""
    room = shutil.get_terminal_size().lines - 1
    if _rows(lines) <= room:
        return list(lines)
    shown = [*lines]
    while len(shown) > 1 and _rows(shown) > room - 1:
        shown.pop()
    return [*shown, f"… {len(lines) - len(shown)} lines more than fit here"]


def _rows(lines: Sequence[str]) -> int:
    columns = shutil.get_terminal_size().columns
    return sum(max(1, -(-_width(for_terminal(line)) // columns)) for line in lines)


def _width(text: str) -> int:
    """Return how many of a terminal's columns the text takes."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def print_json(body: Mapping[str, Any]) -> None:
    print_lines(json.dumps({**body, **of_the_pod()}, ensure_ascii=True))


def print_error(message: str) -> None:
    """One line per fault, on standard error, each with our name in front."""
    for line in message.splitlines():
        _write_message("error", f"queue-eval: {line}")


def print_defect(error: Exception) -> None:
    """A traceback; in a pod without its words, for a log has more readers than a terminal."""
    request = "queue-eval: this is a defect of queue-eval; please report it with"
    if of_the_pod():
        _write_message("error", f"{request} this line", traceback=frames(error))
        return
    _write_error("".join(traceback.format_exception(error)))
    _write_message("error", f"{request} the lines above")


def print_notice(text: str) -> None:
    """Something to know, on standard error: programs read the other one."""
    _write_message("notice", text)


def _write_message(level: str, text: str, **more: str) -> None:
    """On standard error, which of a pod is a log: JSON lines."""
    pod = of_the_pod()
    line = json_line(time.time(), level, text, event=level, **pod, **more) if pod else for_terminal(text)
    _write_error(line)


def _write_error(line: str) -> None:
    """Where it cannot be written, the exit code is left."""
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except OSError:
        unread(sys.stderr)


def shell_quoted(word: str | os.PathLike[str]) -> str:
    text = str(word)
    return text if re.fullmatch(r"[\w./:@%+=,-]+", text) else "'" + text.replace("'", "'\\''") + "'"
