"""Standard output and error as a process finds them: closed, full, or of a terminal that cannot show all characters."""

import io
import os
import sys
from pathlib import Path
from typing import TextIO


def open_closed() -> None:
    """Lead what is closed to nowhere. Imported before everything else writes: Python has None there."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - until the process ends


def show_all_characters() -> None:
    """A name that the terminal cannot show is no reason for another exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def unread(stream: TextIO) -> None:
    """Nothing can be written to it: what the interpreter still writes at the end goes nowhere, and is no error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
