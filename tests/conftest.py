"""Servers that several suites share. A missing server is a named skip here and a failure in CI."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.provider.server import Provider
from loadtest.redis_server import BINARIES, Server
from tests.support.must_have import must_have, server_binary

HALUEVAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "halueval_qa.jsonl"


@pytest.fixture(scope="session", params=list(BINARIES))
def redis_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Each kind of server that this machine has."""
    server = Server(server_binary(request.param)).start()
    yield server
    server.close()


@pytest.fixture
def own_redis() -> Iterator[Server]:
    """One server for one test, to be killed and flushed."""
    binary = next((b for find in reversed(BINARIES.values()) if (b := find())), None)
    if binary is None:
        if must_have():
            pytest.fail("no redis-server on this machine, and CI must have it")
        pytest.skip("no redis-server on this machine")
    server = Server(binary).start()
    yield server
    server.close()


@pytest.fixture
def provider() -> Iterator[Provider]:
    server = Provider().start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Moto's S3, which enforces conditional writes."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_url(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(scope="session")
def halueval() -> Path:
    if not HALUEVAL.is_file():
        if must_have():
            pytest.fail(f"{HALUEVAL} is missing, and CI must have it")
        pytest.skip(f"{HALUEVAL} is not here: the labelled cases stand beside the checkout only where it is developed")
    return HALUEVAL
