"""Function tools as short text, for chat templates that know no tools.

A JSON schema spends most of its tokens on itself. A tool is written here as the very call that it expects, with a type
and description where each value goes:

    # Area of a triangle.
    {"name": "area", "arguments": {"base": <integer: Length of the base>, "unit": <optional "cm"|"m", default "cm">}}

What the answer must copy stands there in the same characters, hence the same tokens, which plain signatures,
`area(base: integer)`, do not give. How far that helps is in research/method.md.
"""

import json
from typing import Any

_MAX_DEPTH = 8


def tool_pattern(function: dict[str, Any]) -> str:
    """Description and expected call of one function of an OpenAI tools list."""
    parameters = function.get("parameters") or {}
    pattern = f'{{"name": {_json(function["name"])}, "arguments": {_object(parameters, 0)}}}'
    description = _line(function.get("description"))
    return f"# {description}\n{pattern}" if description else pattern


def _object(schema: dict[str, Any], depth: int) -> str:
    required = schema.get("required") or ()
    members = [
        f"{_json(name)}: {_value(value if isinstance(value, dict) else {}, name in required, depth)}"
        for name, value in (schema.get("properties") or {}).items()
    ]
    return f"{{{', '.join(members)}}}"


def _value(schema: dict[str, Any], required: bool, depth: int) -> str:
    if schema.get("type") == "object" and schema.get("properties") and depth < _MAX_DEPTH:
        return _object(schema, depth + 1)
    text = f"{'' if required else 'optional '}{_type(schema, depth)}"
    if schema.get("default") not in (None, ""):
        text += f", default {_json(schema['default'])}"
    description = _line(schema.get("description"))
    return f"<{text}: {description}>" if description else f"<{text}>"


def _type(schema: dict[str, Any], depth: int) -> str:
    if depth >= _MAX_DEPTH:
        return "any"
    if schema.get("enum"):
        return "|".join(_json(value) for value in schema["enum"])
    kinds = schema.get("type", "any")
    if isinstance(kinds, list):
        return "|".join(_type({**schema, "type": kind}, depth + 1) for kind in kinds)
    if kinds == "array":
        items = schema.get("items")
        return f"list of {_type(items, depth + 1)}" if isinstance(items, dict) else "list"
    if kinds == "object" and schema.get("properties"):
        return _object(schema, depth + 1)
    return str(kinds)


def _line(text: Any) -> str:
    return " ".join(str(text or "").split())


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
