"""Marks by which DeepEval takes an image or a sound into a prompt.

DeepEval's own models open what a mark names, a file or an address, and send it to the judge.
"""

from typing import Any

MARK = "[DEEPEVAL:"
_SOUND = "audio"  # of a turn: DeepEval opens it while the turn is made


def media_in(fields: Any) -> str | None:
    """Where in a case's fields a mark or a sound stands, or None. Without recursion: the value may be hostile."""
    todo: list[tuple[str, Any]] = [("", fields)]
    while todo:
        place, value = todo.pop()
        if isinstance(value, str):
            if MARK in value.upper():
                return place
        elif isinstance(value, dict):
            for key, child in value.items():
                if MARK in str(key).upper() or (str(key).lower() == _SOUND and child is not None):
                    return f"{place}.{key}".strip(".")[:100]
                todo.append((place or str(key)[:100], child))
        elif isinstance(value, list):
            todo += [(place, child) for child in value]
    return None


def without_marks(prompt: str) -> str:
    """The same words, and nothing in them that DeepEval's models take for a mark."""
    return prompt.replace(MARK, "[DEEPEVAL\u200b:") if MARK in prompt else prompt
