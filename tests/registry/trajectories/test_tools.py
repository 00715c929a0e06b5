"""Which functions may be offered."""

from typing import Any

import pytest

from registry.errors import InvalidTrajectory
from registry.trajectories.tools import check_tools


def tool(parameters: Any = ..., **function: Any) -> dict[str, Any]:
    given = {} if parameters is ... else {"parameters": parameters}
    return {"type": "function", "function": {"name": "go", **given, **function}}


@pytest.mark.parametrize(
    "good",
    [
        tool(),
        tool(None, description=None, strict=None),
        tool({}, strict=True),
        {"function": {"name": "go"}},
        {"type": None, "function": {"name": "go"}},
        tool({"type": "object", "properties": {"a": {"type": "string"}, "b": None}}),
        tool({"type": "object", "properties": None, "required": None, "additionalProperties": False}),
        tool({"$defs": {"A": {"enum": ["a"]}}, "properties": {"x": {"anyOf": [{"$ref": "#/$defs/A"}, True]}}}),
        tool({"properties": {"a": {"type": ["string", "null"], "required": True, "items": [{}, False]}}}),
        tool({"city": {"type": "str", "description": "x", "default": ""}, "required": {"type": "bool"}}),
        tool({"properties": {"required": {"type": "boolean"}, "enum": {}, "properties": {"type": "object"}}}),
    ],
    ids=str,
)
def test_what_can_be_read_is_taken(good: Any) -> None:
    assert check_tools([good]) == {"go"}


@pytest.mark.parametrize(
    ("bad", "place"),
    [
        (tool([]), ".function.parameters"),
        (tool("object"), ".function.parameters"),
        (tool({"required": True}), ".function.parameters.required"),
        (tool({"type": "object", "properties": {}, "required": False}), ".function.parameters.required"),
        (tool({"type": "object", "required": "a"}), ".function.parameters.required"),
        (tool({"type": "object", "required": [1]}), ".function.parameters.required"),
        (tool({"type": "object", "properties": ["a"]}), ".function.parameters.properties"),
        (tool({"properties": {"a": "string"}}), ".function.parameters.properties.a"),
        (tool({"properties": {"a": {"properties": {"b": 1}}}}), ".function.parameters.properties.a.properties.b"),
        (tool({"properties": {"a": {"type": 3}}}), ".function.parameters.properties.a.type"),
        (tool({"properties": {"a": {"enum": "x"}}}), ".function.parameters.properties.a.enum"),
        (tool({"properties": {"a": {"items": "x"}}}), ".function.parameters.properties.a.items"),
        (tool({"properties": {"a": {"anyOf": {"type": "x"}}}}), ".function.parameters.properties.a.anyOf"),
        (tool({"properties": {"a": {"anyOf": [None]}}}), ".function.parameters.properties.a.anyOf[0]"),
        (tool({"$defs": 1, "type": "object"}), ".function.parameters.$defs"),
        (tool({"$ref": 1}), ".function.parameters.$ref"),
        (tool(description=1), ".function.description"),
        (tool(name="x" * 257), ".function.name"),
        ({"type": "web_search"}, ""),
        ({"name": "go", "parameters": {}}, ""),
        ({"type": ["function"], "function": {"name": "go"}}, ""),
    ],
    ids=str,
)
def test_what_cannot_mean_anything_is_refused_at_its_place(bad: Any, place: str) -> None:
    with pytest.raises(InvalidTrajectory) as error:
        check_tools([tool(name="other"), bad])
    assert str(error.value).startswith(f"tools[1]{place}: got ")
