"""What Redis' errors mean, in the words of 6.2 and 7.0."""

import asyncio
from collections.abc import Callable
from functools import partial

import pytest
import redis.exceptions as errors

from queue_eval.core.errors import ConfigError
from queue_eval.core.location import url_without_secret
from queue_eval.queue.connection import as_written, check, connect, redis_errors
from queue_eval.redis_faults import Fault, fault, refusal


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (errors.ConnectionError("Connection refused"), Fault.AWAY),
        (errors.TimeoutError("Timeout reading"), Fault.AWAY),
        (ConnectionResetError(), Fault.AWAY),
        (errors.BusyLoadingError("Redis is loading the dataset in memory"), Fault.AWAY),
        (errors.OutOfMemoryError("command not allowed when used memory > 'maxmemory'. script: ab, on @user_script:1."), Fault.AWAY),
        (errors.ReadOnlyError("You can't write against a read only replica."), Fault.AWAY),
        (errors.ResponseError("MISCONF Redis is configured to save RDB snapshots, but it is unable to persist"), Fault.AWAY),
        (errors.ResponseError("BUSY Redis is busy running a script"), Fault.AWAY),
        (errors.ResponseError("Error running script (call to f_1): @user_script:3: @user_script: 3: -OOM command not allowed"), Fault.AWAY),
        (errors.ResponseError("Error running script (call to f_1): @user_script:3: -READONLY You can't write"), Fault.AWAY),
        (errors.ResponseError("NOREPLICAS Not enough good replicas to write."), Fault.AWAY),
        (errors.AuthenticationError("invalid username-password pair"), Fault.REFUSED),
        (errors.NoPermissionError("this user has no permissions to run the 'eval' command"), Fault.REFUSED),
        (errors.ResponseError("DENIED Redis is running in protected mode because protected mode is enabled"), Fault.REFUSED),
        (errors.ResponseError("NOAUTH Authentication required."), Fault.REFUSED),
        (errors.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"), Fault.DEFECT),
        (errors.ResponseError("user_script:1: Script attempted to access nonexistent global variable 'x'"), Fault.DEFECT),
    ],
)  # fmt: skip
def test_i17_what_passes_is_no_defect_and_a_defect_does_not_pass(error: Exception, meaning: Fault) -> None:
    assert fault(error) is meaning


def test_a_server_in_protected_mode_is_reported_with_its_remedy() -> None:
    printed = str(refusal(errors.ResponseError("DENIED Redis is running in protected mode because …")))
    assert (
        printed
        == "redis refuses us (protected mode); it has no password and serves its own machine alone: give it one (redis.password_env)"
    )


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix", "", "red is", "user:ssw0rd"])
@pytest.mark.parametrize(
    "password", ["pa/ssw0rd", "pa#ssw0rd", "pa?ssw0rd", "pa@ssw0rd", "p:a/s#s?w@0rd", "ssw0rd://x"]
)
@pytest.mark.parametrize(
    "form",
    [
        "{s}:/:{p}@h:6379/0",
        "{s}:user:{p}@h",
        "user:{p}@h",
        "{s}://:{p}@h:6379/0",
        "{s}://user:{p}@h:6379/0",
        "{s}://h:6379/0?password={p}",
        "{s}://h/0?a=b&password={p}&c=d",
    ],
)
def test_no_part_of_a_password_is_shown_whatever_stands_in_it(scheme: str, password: str, form: str) -> None:
    url = form.format(s=scheme, p=password)
    assert "ssw0rd" not in url_without_secret(url)
    try:
        connect(url)
    except ConfigError as error:
        assert "ssw0rd" not in str(error)


async def serve(answer: Callable[[list[bytes]], bytes]) -> tuple[asyncio.Server, str]:
    """A server that answers each command."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = []
            for _ in range(int(line[1:]) if line.startswith(b"*") else 0):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            writer.write(answer(words))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    return server, f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"


def in_mode(mode: bytes, words: list[bytes]) -> bytes:
    """As Redis 7 answers: before its client asks for version 3 of the protocol, and after."""
    if words[0] != b"HELLO":
        return b"+PONG\r\n" if words[0] == b"PING" else b"+OK\r\n"
    kind = b"%2\r\n" if len(words) > 1 else b"*4\r\n"
    return kind + b"$4\r\nmode\r\n$%d\r\n%s\r\n$4\r\nrole\r\n$6\r\nmaster\r\n" % (len(mode), mode)


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (partial(in_mode, b"cluster"), "a node of a Redis Cluster"),
        (partial(in_mode, b"sentinel"), "a Sentinel"),
        (lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n", "no Redis"),
    ],
)
async def test_a_server_that_is_none_for_us_is_named_before_anything_is_written(
    answer: Callable[[list[bytes]], bytes], named: str
) -> None:
    server, url = await serve(answer)
    async with server, connect(url) as client:
        with pytest.raises(ConfigError, match=named):
            await check(client, url)


async def test_a_single_server_is_taken() -> None:
    server, url = await serve(partial(in_mode, b"standalone"))
    async with server, connect(url) as client:
        await check(client, url)


@pytest.mark.parametrize("error", [errors.MovedError("3999 h:6381"), errors.ClusterCrossSlotError("Keys in request")])
def test_an_error_of_a_cluster_whose_code_the_client_takes_off_is_known(error: Exception) -> None:
    with pytest.raises(ConfigError, match="Redis Cluster"), redis_errors():
        raise error


def test_a_database_that_no_server_has_is_named() -> None:
    with pytest.raises(ConfigError, match="no server has a database 9223372036854775808"):
        connect("redis://h:6379/9223372036854775808")


def test_a_url_without_a_secret_is_shown_whole() -> None:
    assert url_without_secret("redis://h:6379/0") == "redis://h:6379/0"
    assert url_without_secret("unix:///tmp/redis.sock") == "unix:///tmp/redis.sock"
    assert url_without_secret("redis://:x@h:6379/0") == "redis://***@h:6379/0"


@pytest.mark.parametrize(
    "option",
    ["decode_responses=True", "protocol=7", "nonsense=1", "max_connections=0", "ssl_cert_reqs=CERT_NONE", "encoding=x"],
)
def test_an_option_that_would_change_what_the_client_does_is_named(option: str) -> None:
    with pytest.raises(ConfigError, match=option.partition("=")[0]):
        connect(f"rediss://h:6379/0?{option}")


async def test_options_of_tls_are_taken() -> None:
    client = connect("rediss://h:6379/0?ssl_cert_reqs=none&ssl_check_hostname=false&client_name=x")
    await client.aclose()


@pytest.mark.parametrize(
    "printed",
    [
        "MOVED 3999 127.0.0.1:6381",
        "CROSSSLOT Keys in request don't hash to the same slot",
        "SELECT is not allowed in cluster mode",
        "DB index is out of range",
    ],
)
def test_a_server_that_is_none_for_a_run_is_no_reason_to_delete_keys(printed: str) -> None:
    with pytest.raises(ConfigError) as error, as_written("r"):
        raise errors.ResponseError(printed)
    assert "delete" not in str(error.value)
