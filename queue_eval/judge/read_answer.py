"""Reads a judge's text into the schema that was asked for: at least as tolerant as DeepEval's reader, and no value is guessed."""

import json
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from queue_eval.judge.in_words import in_words

MOST_OBJECTS = 64  # that an answer is searched for
MOST_MENDED_CHARACTERS = 200_000
_ENDS_OF_THINKING = ("</think>", "</thinking>", "</reasoning>")
# a string that is never closed goes to the end: each character is looked at once
_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*(?:"|$))|,(\s*[\]}])', re.DOTALL)
_decoder = json.JSONDecoder(strict=False)  # a line break within a string is a line break


def read_answer(text: str, model: type[BaseModel]) -> BaseModel:
    """Return the answer as the model's instance. ValueError when it holds no JSON object that fits.

    Judges wrap JSON in prose, code fences and thoughts: the last object that fits counts. One that may be a part of a broken
    object counts only where no other fits.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        reason = f"the answer does not fit {model.__name__}: {in_words(error)}"
    found = _found_in(_after_thinking(text)) or _found_in(text)
    if not found:
        raise ValueError(f"no JSON object in the answer: {text[:80]!a}")
    for candidate, _ in sorted(found, key=lambda one: one[1]):
        try:
            return _validated(candidate, model)
        except ValidationError as error:
            reason = f"the answer does not fit {model.__name__}: {in_words(error)}"
    raise ValueError(reason)


def _found_in(text: str) -> list[tuple[dict[str, Any], bool]]:
    """The objects in the text as it stands and as it is mended, the last first."""
    return [one for spelling in (text, *_mended(text)) for one in reversed(list(_objects(spelling)))]


def _after_thinking(text: str) -> str:
    """What stands behind the thoughts, whose beginning a template may have swallowed."""
    low = text.lower()
    return text[max(low.rfind(end) + len(end) if end in low else 0 for end in _ENDS_OF_THINKING) :]


def _mended(text: str) -> Iterator[str]:
    """Without trailing commas, and with the brace that is missing at the end: both as DeepEval's reader does."""
    if len(text) <= MOST_MENDED_CHARACTERS:
        mended = _TRAILING_COMMA.sub(lambda found: found[1] or found[2], text)
        yield mended
        yield mended.rstrip().removesuffix("```").rstrip() + "}"


def _objects(text: str) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield the outermost JSON objects in their order, each with whether it may be a part of a broken one before it."""
    at, is_doubtful = 0, False
    for _ in range(MOST_OBJECTS):
        at = text.find("{", at)
        if at < 0:
            return
        try:
            found, at = _decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at, is_doubtful = at + 1, True
        else:
            yield found, is_doubtful


def _validated(candidate: dict[str, Any], model: type[BaseModel]) -> BaseModel:
    """Words of a fixed choice count in any case: a judge writes Yes for yes."""
    try:
        return model.model_validate_json(json.dumps(candidate))
    except ValidationError as error:
        choices = [e["loc"] for e in error.errors(include_url=False) if e["type"] in ("literal_error", "enum")]
        if not choices or not all(_lower(candidate, place) for place in choices):
            raise
        return model.model_validate_json(json.dumps(candidate))


def _lower(tree: Any, place: tuple[int | str, ...]) -> bool:
    """Write the word at this place in lower case, without what stands around it. False where there is none."""
    try:
        for step in place[:-1]:
            tree = tree[step]
        tree[place[-1]] = tree[place[-1]].strip(" \t\n.!*\"'`").lower()
    except (LookupError, TypeError, AttributeError):
        return False
    return True
