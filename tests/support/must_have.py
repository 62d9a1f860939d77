"""What a machine lacks."""

import os
from pathlib import Path

import pytest

from loadtest.redis_server import BINARIES


def must_have() -> bool:
    """In CI a missing server is a failure, elsewhere a named skip."""
    return os.environ.get("CI", "") == "true"


def server_binary(kind: str) -> Path:
    """Of one of BINARIES."""
    if (binary := BINARIES[kind]()) is None:
        reason = f"no {kind} redis-server on this machine"
        if must_have():
            pytest.fail(f"{reason}, and CI must have it")
        pytest.skip(reason)
    return binary
