"""Servers that several suites share. A missing server is a named skip here and a failure in CI."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from loadtest import s3_server
from loadtest.provider.server import Provider
from loadtest.redis_server import BINARIES, Server, newest
from tests.support.must_have import missing, must_have, needs_versitygw, server_binary

HALUEVAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "halueval_qa.jsonl"


@pytest.fixture(scope="session", params=list(BINARIES))
def redis_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Each kind of server that this machine has."""
    server = Server(server_binary(request.param)).start()
    yield server
    server.close()


@pytest.fixture(params=list(BINARIES))
def each_redis(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of each kind for one test, to be killed and flushed."""
    server = Server(server_binary(request.param)).start()
    yield server
    server.close()


@pytest.fixture
def own_redis() -> Iterator[Server]:
    """One server for one test, to be killed and flushed."""
    binary = newest()
    if binary is None:
        missing("redis-server")
    server = Server(binary).start()
    yield server
    server.close()


@pytest.fixture
def provider() -> Iterator[Provider]:
    server = Provider().start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def s3_servers() -> Iterator[Callable[[str], str]]:
    """The URL of one of s3_server.SERVERS, each started once; all of them enforce conditional writes."""
    with ExitStack() as stack:

        @cache
        def url(kind: str) -> str:
            if kind == "versitygw":
                needs_versitygw()
            return stack.enter_context(s3_server.SERVERS[kind]())

        yield url


@pytest.fixture
def s3_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_server.CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=list(s3_server.SERVERS))
def s3_url(request: pytest.FixtureRequest, s3_servers: Callable[[str], str], s3_credentials: None) -> str:
    return s3_servers(request.param)


@pytest.fixture(scope="session")
def halueval() -> Path:
    if not HALUEVAL.is_file():
        if must_have():
            pytest.fail(f"{HALUEVAL} is missing, and CI must have it")
        pytest.skip(f"{HALUEVAL} is not here: the labelled cases stand beside the checkout only where it is developed")
    return HALUEVAL
