"""What the API server's answers mean, in our words."""

import json

from queue_eval.core.errors import AccessError, ConfigError, QueueEvalError, UnavailableError

BUSY = (429, 500, 502, 503, 504)
REFUSED = (400, 403, 422)  # quota, admission, a field that it does not take
LONGEST_PAUSE_S = 60.0  # whatever it asks for


class ClusterError(QueueEvalError):
    """An answer that is neither success nor one of the errors that have a meaning here."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"kubernetes: {message}")
        self.status = status


class BusyError(UnavailableError):
    """It may serve later. `after_s`: what it asked for."""

    def __init__(self, message: str, after_s: float = 0.0) -> None:
        super().__init__(f"kubernetes: {message}")
        self.after_s = after_s


class GoneError(QueueEvalError):
    """The server no longer remembers so far back: list again."""


def refusal(error: ClusterError) -> QueueEvalError:
    """Of a write: UnavailableError where a quota is used up for now, ConfigError where nothing but a person helps."""
    if error.status not in REFUSED:
        return error
    remedy = "the same command goes on where it stopped"
    if "exceeded quota" in str(error):
        return UnavailableError(f"{error}; make room in the namespace's quota, then {remedy}")
    return ConfigError(f"{error}; mend what refuses it in the cluster, then {remedy}")


def meaning(status: int, words: str, method: str, after: str | None = None) -> QueueEvalError:
    if status == 410:
        return GoneError(words)
    if status == 401:
        return AccessError(
            f"kubernetes: the cluster does not know us ({words}); log in again, or name another --context"
        )
    if status == 403 and "is forbidden: User" in words:
        # its own words name the user, the verb, the resource and the namespace
        return AccessError(f"kubernetes: {words}; ask for a Role with that verb (k8s/base/platform has them)")
    if status in BUSY or (status == 409 and "has been modified" in words):
        asked_s = min(float(after), LONGEST_PAUSE_S) if after and after.isdigit() else 0.0
        return BusyError(f"{method} was answered {status}: {words}", asked_s)
    return ClusterError(status, words)


def message(body: bytes) -> str:
    try:
        return str(json.loads(body).get("message") or body.decode(errors="replace"))
    except (ValueError, AttributeError):
        return body[:300].decode(errors="replace")
