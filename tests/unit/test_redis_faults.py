"""What Redis' errors mean, in the words of 6.2 and 7.0."""

import pytest
import redis.exceptions as errors

from queue_eval.core.errors import ConfigError
from queue_eval.core.location import url_without_secret
from queue_eval.queue.connection import as_written, connect
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


def test_a_server_in_protected_mode_is_told_with_its_remedy() -> None:
    said = str(refusal(errors.ResponseError("DENIED Redis is running in protected mode because …")))
    assert (
        said
        == "redis refuses us (protected mode); it has no password and serves its own machine alone: give it one (redis.password_env)"
    )


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix"])
@pytest.mark.parametrize(
    "password", ["pa/ssw0rd", "pa#ssw0rd", "pa?ssw0rd", "pa@ssw0rd", "p:a/s#s?w@0rd", "ssw0rd://x"]
)
@pytest.mark.parametrize(
    "form",
    ["{s}://:{p}@h:6379/0", "{s}://user:{p}@h:6379/0", "{s}://h:6379/0?password={p}", "{s}://h/0?a=b&password={p}&c=d"],
)
def test_no_part_of_a_password_is_shown_whatever_stands_in_it(scheme: str, password: str, form: str) -> None:
    url = form.format(s=scheme, p=password)
    assert "ssw0rd" not in url_without_secret(url)
    try:
        connect(url)
    except ConfigError as error:
        assert "ssw0rd" not in str(error)


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
    "said",
    [
        "MOVED 3999 127.0.0.1:6381",
        "CROSSSLOT Keys in request don't hash to the same slot",
        "SELECT is not allowed in cluster mode",
        "DB index is out of range",
    ],
)
def test_a_server_that_is_none_for_a_run_is_no_reason_to_delete_keys(said: str) -> None:
    with pytest.raises(ConfigError) as error, as_written("r"):
        raise errors.ResponseError(said)
    assert "delete" not in str(error.value)
