"""What Redis' errors mean, in the words of 6.2 and 7.0."""

import pytest
import redis.exceptions as errors

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
