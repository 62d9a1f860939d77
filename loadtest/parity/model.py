"""A judge whose answer depends on the question alone: the same question gets the same answer."""

import asyncio
import hashlib
import json
from typing import Any

from deepeval.models import DeepEvalBaseLLM
from pydantic import BaseModel


class HashJudge(DeepEvalBaseLLM):  # type: ignore[misc]  # deepeval has no type information
    """For `judge: {type: import, path: loadtest.parity.model:HashJudge}` and for DeepEval's own runner."""

    def __init__(self) -> None:
        # not super().__init__: it would load a model
        self.name = "hash"
        self.model = self

    def load_model(self, *_: Any, **__: Any) -> "HashJudge":
        return self

    def get_model_name(self, *_: Any, **__: Any) -> str:
        return self.name

    def generate(self, prompt: str, schema: type[BaseModel] | None = None) -> BaseModel | str:
        digest = hashlib.sha256(prompt.encode()).hexdigest()
        if schema is None:
            return json.dumps({"score": int(digest[:4], 16) % 11, "reason": f"because {digest[:8]}", "verdict": "yes"})
        shape = schema.model_json_schema()
        return schema.model_validate(_value(shape, shape.get("$defs", {}), digest, "", 0))

    async def a_generate(self, prompt: str, schema: type[BaseModel] | None = None) -> BaseModel | str:
        await asyncio.sleep(0)  # as every model that asks a server
        return self.generate(prompt, schema)


def _value(  # noqa: PLR0911 - a table
    shape: dict[str, Any], known: dict[str, Any], digest: str, name: str, depth: int
) -> Any:
    """Of a JSON schema; other values for each field, the same for the same question."""
    own = hashlib.sha256(f"{digest} {name} {depth}".encode()).hexdigest()
    number = int(own[:8], 16)
    if "$ref" in shape:
        return _value(known[shape["$ref"].rsplit("/", 1)[1]], known, digest, name, depth)
    if choices := shape.get("enum") or ([shape["const"]] if "const" in shape else None):
        return choices[number % len(choices)]
    if options := shape.get("anyOf") or shape.get("allOf"):
        return _value(next((o for o in options if o.get("type") != "null"), options[0]), known, digest, name, depth)
    match shape.get("type"):
        case "object":
            fields = shape.get("properties", {})
            return {field: _value(fields[field], known, digest, f"{name}.{field}", depth + 1) for field in fields}
        case "array":
            return [_value(shape.get("items", {}), known, digest, f"{name}[{n}]", depth + 1) for n in range(2)]
        case "boolean":
            return number % 2 == 0
        case "integer":
            return number % 6
        case "number":
            return number % 11 / 10
    if name.endswith("verdict"):
        return ("yes", "no", "idk")[number % 3]
    return f"word {own[:6]}"
