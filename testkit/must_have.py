"""What a machine lacks."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from testkit.redis_server import BINARIES
from testkit.s3_server import versitygw_binary


def must_have() -> bool:
    """In CI a missing server is a failure, elsewhere a named skip."""
    return os.environ.get("CI", "") == "true"


def missing(what: str, *, unless: bool = False) -> NoReturn:
    """`unless`: even CI cannot have it on such a machine."""
    if must_have() and not unless:
        pytest.fail(f"no {what} on this machine, and CI must have it")
    pytest.skip(f"no {what} on this machine")


def needs_versitygw() -> None:
    if versitygw_binary() is None:
        missing("versitygw (testkit/s3_server.py names its source)", unless=shutil.which("go") is None)


def server_binary(kind: str) -> Path:
    """Of one of BINARIES."""
    return BINARIES[kind]() or missing(f"{kind} redis-server")
