"""Logs as JSON lines on standard error: one event each, nothing from the prompts."""

import json
import logging
import os
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

# set by the pod's own specification
_OF_THE_POD = {"run_id": "RUN_ID", "pod": "POD_NAME", "job": "JOB_NAME", "commit": "QUEUE_EVAL_COMMIT_SHA"}
_FIELDS = ("event", "case_id", "execution", "reason", "record", "away_s", "late_s", "usage")


class _JsonLine(logging.Formatter):
    def __init__(self, fixed: dict[str, Any]) -> None:
        super().__init__()
        self._fixed = fixed

    def format(self, record: logging.LogRecord) -> str:
        more = {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info:
            more["traceback"] = frames(record.exc_info[1])
        return json_line(record.created, record.levelname.lower(), record.getMessage(), **self._fixed, **more)


def json_line(at_s: float, level: str, message: str, **more: Any) -> str:
    time = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": time, "level": level, "message": message, **more}, ensure_ascii=True)


def frames(error: BaseException | None) -> str:
    """Where it came from, without its words: those of a metric or a parser may be the prompt's."""
    parts: list[str] = []
    seen: set[int] = set()  # what is raised from itself is its own cause
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        parts.append("".join(traceback.format_tb(error.__traceback__)) + type(error).__qualname__)
        error = error.__cause__ or error.__context__
    return "\n\nthen\n\n".join(reversed(parts))


def of_the_pod() -> dict[str, str]:
    """Return the fields that name the pod in every line; none outside a cluster."""
    if "POD_NAME" not in os.environ:
        return {}
    return {name: os.environ[variable] for name, variable in _OF_THE_POD.items() if os.environ.get(variable)}


def log_json_lines(**fixed: Any) -> None:
    fixed |= of_the_pod()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLine(fixed))
    logger = logging.getLogger("queue_eval")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
