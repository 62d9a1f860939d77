"""JSON schemas for the judge's answers."""

import json
from functools import cache
from typing import Any

from pydantic import BaseModel


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
