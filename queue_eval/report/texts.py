"""A case's texts, for the forms that show it: each text as far as it is worth a look."""

import json
from typing import Any

from queue_eval.core.case import Case

MOST_CHARACTERS = 2000  # of one field; results.jsonl has all of them
_ORDER = (
    "scenario",
    "turns",
    "input",
    "actual_output",
    "expected_output",
    "expected_outcome",
    "context",
    "retrieval_context",
    "tools_called",
    "expected_tools",
    "chatbot_role",
    "user_description",
    "comments",
)


def shown(case: Case) -> dict[str, str]:
    """Its fields as texts, in the order in which one reads them."""
    return {name: _capped(_text(case.fields[name])) for name in _ORDER if case.fields.get(name) not in (None, "", [])}


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(map(_item, value))
    return json.dumps(value, ensure_ascii=False)


def _item(value: Any) -> str:
    if isinstance(value, dict) and "role" in value and "content" in value:
        return f"{value['role']}: {value['content']}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _capped(text: str) -> str:
    more = len(text) - MOST_CHARACTERS
    return text if more <= 0 else f"{text[:MOST_CHARACTERS]} … ({more:,} more characters in results.jsonl)"
