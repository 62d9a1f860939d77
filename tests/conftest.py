"""Servers that several suites share. A missing server is a named skip here and a failure in CI."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

from testkit import s3_server
from testkit.must_have import missing, must_have, needs_versitygw, server_binary
from testkit.provider.server import Provider
from testkit.redis_server import BINARIES, Server, newest
from tests.ci.share import Share

settings.register_profile("same", derandomize=True, print_blob=True)
settings.register_profile("explore", print_blob=True)
# the same examples each time: no change fails by another's bad luck. HYPOTHESIS_PROFILE=explore takes others
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

HALUEVAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "halueval_qa.jsonl"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--thorough", type=Share.named, default=Share.named("all"), metavar="SHARE",
        help="which of the thorough tests run beside the others: all, none, or K/N for one share of N",
    )  # fmt: skip


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    share: Share = config.getoption("--thorough")
    left_out = [item for item in items if is_thorough(item) and not share.holds(item.nodeid)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def is_thorough(item: pytest.Item) -> bool:
    """What states a promise that another test states too: in more depth, on another server, or on a whole cluster."""
    if item.get_closest_marker("thorough"):
        return True
    suite = item.path.parent.name
    if suite == "cluster":
        return not item.get_closest_marker("core")
    params = item.callspec.params if hasattr(item, "callspec") else {}
    server = params.get("each_redis") or params.get("redis_server")
    is_long = suite == "integration" or item.get_closest_marker("long") is not None
    return is_long and server not in (None, newest_kind())


@cache
def newest_kind() -> str | None:
    return next((kind for kind in reversed(BINARIES) if BINARIES[kind]()), None)


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
