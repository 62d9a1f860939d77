"""Reads a judge's text into the schema that was asked for.

At least as tolerant as DeepEval's reader, and no value is guessed.
"""

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from queue_eval.judge.in_words import MOST_ERRORS, in_words

MOST_CHARACTERS = 1_000_000  # more than any model writes at once
MOST_OBJECTS = 64  # of an answer that are looked at, the last ones
MOST_PARSED_CHARACTERS = 20_000_000  # in search of them
MOST_MENDED_CHARACTERS = 200_000
_THINKING = ("think", "thinking", "reasoning")
_OBJECT_BEGINS = re.compile(r'\{\s{0,100}["}]')  # a brace in prose is none
# a string that is never closed goes to the end: each character is looked at once
_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*(?:"|$))|,(\s*[\]}])', re.DOTALL)
_decoder = json.JSONDecoder(strict=False)  # a line break within a string is a line break


def read_answer(text: str, model: type[BaseModel]) -> BaseModel:
    """Return the answer as the model's instance. ValueError when it holds no JSON object that fits.

    Judges wrap JSON in prose, code fences and thoughts: the last object that fits counts. One that may be a part of a
    broken object counts only where no other fits.
    """
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"the answer has {len(text):,} characters; at most {MOST_CHARACTERS:,} are read as JSON")
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        reason = f"the answer does not fit {model.__name__}: {in_words(error)}"
    found = _found_in(_without_thinking(text)) or _found_in(text)
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


def _without_thinking(text: str) -> str:
    """Without the thoughts: a template may have swallowed their beginning, and a cut answer lacks their end."""
    for name in _THINKING:
        begin, end = f"<{name}>", f"</{name}>"
        parts, low, at = [], text.lower(), 0
        while (start := low.find(begin, at)) >= 0 and (stop := low.find(end, start)) >= 0:
            parts.append(text[at:start])
            at = stop + len(end)
        rest = text[at:]
        if (stop := rest.lower().rfind(end)) >= 0:
            parts, rest = [], rest[stop + len(end) :]
        parts.append(rest[:start] if (start := rest.lower().find(begin)) >= 0 else rest)
        text = "".join(parts)
    return text


def _mended(text: str) -> Iterator[str]:
    """Without trailing commas, and with the brace that is missing at the end: both as DeepEval's reader does."""
    if len(text) <= MOST_MENDED_CHARACTERS:
        mended = _TRAILING_COMMA.sub(lambda found: found[1] or found[2], text)
        yield mended
        yield mended.rstrip().removesuffix("```").rstrip() + "}"


def _objects(text: str) -> Iterable[tuple[dict[str, Any], bool]]:
    """Return the outermost JSON objects in their order, each with whether it may be part of a broken one before it."""
    found: deque[tuple[dict[str, Any], bool]] = deque(maxlen=MOST_OBJECTS)
    at, is_doubtful, left = 0, False, MOST_PARSED_CHARACTERS
    while left > 0 and (brace := _OBJECT_BEGINS.search(text, at)):
        at = brace.start()
        try:
            one, end = _decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            left -= error.pos + 1  # it has counted the lines before
            at, is_doubtful = at + 1, True
        except (ValueError, RecursionError):
            left -= len(text)
            at, is_doubtful = at + 1, True
        else:
            found.append((one, is_doubtful))
            left -= end - at
            at = end
    return found


def _validated(candidate: dict[str, Any], model: type[BaseModel]) -> BaseModel:
    """Words of a fixed choice count in any case: a judge writes Yes for yes."""
    try:
        return model.model_validate_json(json.dumps(candidate))
    except ValidationError as error:
        if error.error_count() > MOST_ERRORS:
            raise
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
