"""Tools as patterns of their calls."""

from typing import Any

import pytest

from memgen.text.tool_calls import tool_pattern


def _pattern(properties: dict[str, Any], required: tuple[str, ...] = ()) -> str:
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return tool_pattern({"name": "f", "parameters": parameters}).removeprefix('{"name": "f", "arguments": ')[:-1]


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ({"type": "integer"}, '{"x": <integer>}'),
        ({"type": "string", "description": "A\n name"}, '{"x": <string: A name>}'),
        ({"type": "array", "items": {"type": "number"}}, '{"x": <list of number>}'),
        ({"type": "array"}, '{"x": <list>}'),
        ({"enum": ["cm", 1]}, '{"x": <"cm"|1>}'),
        ({"type": ["string", "null"]}, '{"x": <string|null>}'),
        ({}, '{"x": <any>}'),
        ({"type": "object", "properties": {"y": {"type": "boolean"}}}, '{"x": {"y": <optional boolean>}}'),
        ({"type": "boolean", "default": False}, '{"x": <boolean, default false>}'),
    ],
    ids=str,
)
def test_values(schema: dict[str, Any], pattern: str) -> None:
    assert _pattern({"x": schema}, ("x",)) == pattern


def test_optional_arguments_are_marked() -> None:
    assert _pattern({"x": {"type": "integer"}, "y": {"type": "integer"}}, ("y",)) == (
        '{"x": <optional integer>, "y": <integer>}'
    )


def test_a_function_without_parameters() -> None:
    assert tool_pattern({"name": "now", "description": "The time"}) == '# The time\n{"name": "now", "arguments": {}}'


def test_endless_schemas_end() -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    schema["properties"]["again"] = schema
    assert "any" in tool_pattern({"name": "f", "parameters": schema})
