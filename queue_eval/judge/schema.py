"""JSON schemas for the judge's answers, and the answers read back."""

import json
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError


@cache
def strict_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The model's JSON schema as strict structured output wants it: closed objects, every property required."""
    schema = model.model_json_schema()
    todo: list[Any] = [schema]
    while todo:
        node = todo.pop()
        if isinstance(node, list):
            todo += node
        elif isinstance(node, dict):
            if node.get("type") == "object" or "properties" in node:
                node["additionalProperties"] = False
                node["required"] = list(node.get("properties", {}))
            if node.get("default") is None:
                node.pop("default", None)
            todo += list(node.values())
    return schema


SCHEMA_REQUEST = "\n\nAnswer with one JSON object that fits this JSON schema, and nothing else:\n"


@cache
def schema_text(model: type[BaseModel]) -> str:
    return json.dumps(strict_schema(model), separators=(",", ":"))


def read_answer(text: str, model: type[BaseModel]) -> BaseModel:
    """The answer as the model's instance. ValueError when it is not JSON or does not fit.

    Judges wrap JSON in prose and code fences; the outermost object counts.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError:
        start, end = text.find("{"), text.rfind("}")
        if start < 0 or end <= start:
            raise ValueError(f"no JSON object in the answer: {text[:80]!a}") from None
        try:
            return model.model_validate_json(text[start : end + 1])
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise ValueError(
                f"the answer does not fit {model.__name__}: {place + ': ' if place else ''}{first['msg']}"
            ) from None
