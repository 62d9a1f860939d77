"""From the rows that people have to the fields of DeepEval's test cases."""

import re
from collections.abc import Mapping
from typing import Any

from queue_eval.core.case import CaseKind
from queue_eval.core.media import media_in
from queue_eval.dataset.strict_json import strict_json
from queue_eval.dataset.unknown_fields import UnknownFields, listed, shortened

_SINGLE = frozenset(
    [
        "input",
        "actual_output",
        "expected_output",
        "context",
        "retrieval_context",
        "metadata",
        "tools_called",
        "comments",
        "expected_tools",
        "token_cost",
        "input_token_count",
        "output_token_count",
        "completion_time",
        "name",
        "tags",
        "custom_column_key_values",
        "expected_labels",
        "multimodal",
    ]
)
_TURN = frozenset(
    (
        "role",
        "content",
        "user_id",
        "latency_ms",
        "interrupted",
        "provider_transcript",
        "retrieval_context",
        "tools_called",
        "metadata",
    )
)
_CONVERSATIONAL = frozenset(
    [
        "turns",
        "scenario",
        "context",
        "name",
        "user_description",
        "expected_outcome",
        "chatbot_role",
        "metadata",
        "comments",
        "tags",
        "expected_labels",
        "multimodal",
    ]
)
# what would change a case's scores or its verdict in DeepEval, and does not here
_NOT_SERVED = {
    "expectations": "requirements of a single case, which DeepEval judges beside the metrics",
    "mcp_servers": "MCP's own objects",
    "mcp_tools_called": "MCP's own objects",
    "mcp_resources_called": "MCP's own objects",
    "mcp_prompts_called": "MCP's own objects",
    "voice": "a sound",
    "call_recording_path": "a sound",
    "flaky": "a case that may fail, while a gate here counts every case",
}
_NO = frozenset(("false", "0", "no", "none", "null", "[]", "{}"))  # in a cell
_RENAMED = {"additional_metadata": "metadata", "query": "input", "question": "input"}
_LISTS = frozenset(("context", "retrieval_context", "tags"))
_JSON_CELLS = frozenset(
    ("tools_called", "expected_tools", "turns", "metadata", "custom_column_key_values", "expected_labels")
)
_TEXTS = frozenset(
    (
        "input",
        "actual_output",
        "expected_output",
        "name",
        "comments",
        "scenario",
        "expected_outcome",
        "user_description",
        "chatbot_role",
    )
)


# a tuple, a set, an array or a call of one of these, as Python prints it
_OF_PYTHON = re.compile(
    r"\s*(?:\(\s*['\"]|\{\s*(['\"])(?:(?!\1).)*\1\s*[,}]|(?:(?:np\.)?array|frozenset|set|list|tuple)\([\[{(]\s*['\"])",
    re.DOTALL,
)


class FieldError(ValueError):
    """One thing wrong with a case; the reader adds the file and line."""


def normalized(row: Mapping[str, Any], unknown: UnknownFields, split: set[str]) -> tuple[CaseKind, dict[str, Any]]:
    """Kind and snake_case fields of one case. FieldError names the field, its value and the remedy.

    Fields that DeepEval's test cases do not have are left out and their names added to `unknown`; those whose text was
    taken for a list joined with `|`, to `split`.
    """
    named: dict[str, Any] = {}
    for key, value in row.items():
        if value is None or value == "":
            continue
        if _renamed(key) in named:
            raise FieldError(
                f"{shortened(key)!r} is another name of a field that is there already ({_renamed(key)}); keep one of"
                " them"
            )
        named[_renamed(key)] = value
    if place := media_in(named):
        raise FieldError(
            f"{place!a} names a file or an address that a judge model would open (an image or a sound); only text is"
            " scored, so take it out"
        )
    _check_served(named)
    kind: CaseKind = "conversational" if "turns" in named else "single"
    known = _CONVERSATIONAL if kind == "conversational" else _SINGLE
    unknown.add(named.keys() - known - _NOT_SERVED.keys())
    fields = {key: _value(key, value) for key, value in named.items() if key in known}
    split.update(key for key in _LISTS & fields.keys() if isinstance(named[key], str) and _is_joined(named[key]))
    if kind == "single" and "input" not in fields:
        raise FieldError(
            f"no 'input' (the fields are {listed(map(str, row)) or 'none'}); a case needs 'input', a conversation"
            " 'turns'"
        )
    if kind == "conversational":
        _check_turns(fields["turns"], unknown)
    return kind, fields


def _renamed(key: Any) -> str:
    snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in str(key).strip()).lstrip("_")
    return _RENAMED.get(snake, snake)


def _value(key: str, value: Any) -> Any:
    if key in _LISTS:
        return _listed(key, value)
    if key in _JSON_CELLS and isinstance(value, str):
        try:
            return strict_json(value)
        except ValueError:
            raise FieldError(f"{key!r} is not JSON; write a list or an object") from None
    if key in _TEXTS and not isinstance(value, str):
        raise FieldError(f"{key!r} is {type(value).__name__}, not text; write a string")
    return value


def _listed(key: str, value: Any) -> list[Any]:
    """A list, a JSON list in a cell, or DeepEval's own `|`-joined form."""
    if isinstance(value, str):
        value = _list_in_text(key, value)
    # DeepEval's retrieved contexts may be objects; everything else is text
    allowed = (str, dict) if key == "retrieval_context" else str
    if not isinstance(value, list) or not all(isinstance(item, allowed) for item in value):
        raise FieldError(f"{key!r} must be a list of texts, not {_kind(value)}")
    return value


def _looks_like_json(text: str) -> bool:
    return text.strip().startswith("[") and text.strip().endswith("]")


def _is_joined(text: str) -> bool:
    return "|" in text and not _looks_like_json(text)


def _list_in_text(key: str, text: str) -> list[Any]:
    if _OF_PYTHON.match(text) and text.rstrip().endswith((")", "}")):
        raise FieldError(f"{key!r} is a list as Python or numpy prints one; write it with json.dumps")
    if _looks_like_json(text):
        try:
            found: list[Any] = strict_json(text)
        except ValueError:
            raise FieldError(
                f"{key!r} looks like a list and is not JSON (pandas writes lists so); write it with json.dumps"
            ) from None
        return found
    parts = text.split("|")
    has_rule = any("|" in line and not line.strip(" \t|:-") for line in text.splitlines())
    if has_rule or (_is_joined(text) and not all(part.strip() for part in parts)):
        raise FieldError(
            f"{key!r} holds '|' as a table does; where it is one text, or a list of them, write a JSON list"
        )
    return parts


def _check_turns(turns: Any, unknown: UnknownFields) -> None:
    if not isinstance(turns, list) or not turns:
        raise FieldError(f"'turns' must be a list of at least one turn, not {_kind(turns)}")
    for turn in turns:
        if (
            not isinstance(turn, dict)
            or turn.get("role") not in ("user", "assistant")
            or not isinstance(turn.get("content"), str)
        ):
            raise FieldError(f"a turn needs 'role' (user or assistant) and 'content' (text), not {_kind(turn)}")
        named = {_renamed(name): value for name, value in turn.items()}
        _check_served(named)
        unknown.add(f"turns[].{name}" for name in named.keys() - _TURN - _NOT_SERVED.keys())


def _check_served(named: Mapping[str, Any]) -> None:
    for name, what in _NOT_SERVED.items():
        value = named.get(name)
        if value and str(value).strip().lower() not in _NO:
            raise FieldError(
                f"{name!r} is {what}, and is not served; take it out, or score the case with DeepEval itself"
            )


def _kind(value: Any) -> str:
    """Never what stands there: the message gets into logs, and the value may be a prompt."""
    if isinstance(value, list):
        return f"a list of {len(value)}, of {', '.join(sorted({type(item).__name__ for item in value})) or 'nothing'}"
    return type(value).__name__


def depth(value: Any) -> int:
    """Nesting of lists and objects; a plain value has depth 0. Without recursion: the value may be hostile."""
    deepest, level = 0, [value]
    while level:
        level = (
            [
                child
                for item in level
                for child in (item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
            ]
            if any(isinstance(item, dict | list) for item in level)
            else []
        )
        if level:
            deepest += 1
    return deepest
