"""What an error of Redis means for the caller."""

import re
from enum import StrEnum

import redis.exceptions as errors

from queue_eval.core.errors import AccessError


class Fault(StrEnum):
    AWAY = "away"  # it may serve later: nothing is wrong with the call
    REFUSED = "refused"  # a password or a right is missing
    DEFECT = "defect"  # the call itself is wrong


_AWAY = (
    errors.ConnectionError,
    errors.TimeoutError,
    errors.BusyLoadingError,
    errors.OutOfMemoryError,
    errors.ReadOnlyError,
    errors.TryAgainError,
    errors.ClusterDownError,
    OSError,
)
_REFUSED = (errors.AuthenticationError, errors.NoPermissionError)
# 6.2 wraps the error of a command within a script into one of its own; the codes stand in the middle of it then
_AWAY_CODE = re.compile(
    r"(?:^|[-: ])(OOM|READONLY|LOADING|MISCONF|BUSY|CLUSTERDOWN|MASTERDOWN|NOREPLICAS|TRYAGAIN|UNKILLABLE)\b"
)
# a server with a password answers HELLO to a client that names none; one without answers DENIED to other machines
_REFUSED_CODE = re.compile(
    r"(?:^|[-: ])(NOAUTH|WRONGPASS|NOPERM|HELLO must be called|user executing the script can't|DENIED)\b"
)


def fault(error: Exception) -> Fault:
    text = str(error)
    if isinstance(error, _REFUSED) or _REFUSED_CODE.search(text):
        return Fault.REFUSED
    if isinstance(error, _AWAY) or _AWAY_CODE.search(text):
        return Fault.AWAY
    return Fault.DEFECT


def refusal(error: Exception) -> AccessError:
    if str(error).startswith("DENIED"):
        remedy = "it has no password and serves its own machine alone: give it one (redis.password_env)"
        return AccessError(f"redis refuses us (protected mode); {remedy}")
    return AccessError(f"redis refuses us: {error}; check the user, the password (redis.password_env) and the ACL")
