"""Tools as patterns of their calls."""

import json
import sys
import tracemalloc
from typing import Any

import pytest

from memgen.text.tool_calls import tool_pattern
from memgen.text.tool_schemas import plain_function


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
        ({"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}, '{"x": <string|null>}'),
        ({"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]},
         '{"x": <string|list of integer>}'),
        ({"anyOf": [{}, {"type": "null"}]}, '{"x": <any>}'),
        ({"type": "string", "nullable": True}, '{"x": <string|null>}'),
        ({"const": "a"}, '{"x": <"a">}'),
        ({"type": "object", "additionalProperties": {"type": "number"}}, '{"x": <object of number>}'),
        ({"type": "object", "additionalProperties": False}, '{"x": <object>}'),
        ({"type": "array", "prefixItems": [{"type": "number"}, {"type": "string"}]}, '{"x": <[number, string]>}'),
        ({"type": "string", "format": "date-time"}, '{"x": <string (date-time)>}'),
        ({"allOf": [{"type": "integer"}], "description": "n"}, '{"x": <integer: n>}'),
        (True, '{"x": <any>}'),
        ({"type": None, "enum": None, "items": None, "properties": None}, '{"x": <any>}'),
    ],
    ids=str,
)  # fmt: skip
def test_values(schema: Any, pattern: str) -> None:
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


def _arguments(parameters: Any) -> str:
    pattern = tool_pattern({"name": "f", "parameters": parameters})
    return pattern.removeprefix('{"name": "f", "arguments": ').removesuffix("}")


ADDRESS = {"type": "object", "properties": {"street": {"type": "string"}}, "required": ["street"]}
TREE = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}}}


@pytest.mark.parametrize(
    ("parameters", "pattern"),
    [
        # As pydantic writes models.
        ({"$defs": {"Address": ADDRESS}, "type": "object", "properties": {
            "to": {"$ref": "#/$defs/Address"},
            "back": {"anyOf": [{"$ref": "#/$defs/Address"}, {"type": "null"}], "default": None},
            "all": {"type": "array", "items": {"$ref": "#/$defs/Address"}, "description": "More"},
         }, "required": ["to"]},
         '{"to": {"street": <string>}, "back": <optional {"street": <string>}|null>, '
         '"all": <optional list of {"street": <string>}: More>}'),
        ({"definitions": {"A": ADDRESS}, "properties": {"to": {"allOf": [{"$ref": "#/definitions/A"}]}}},
         '{"to": {"street": <string>}}'),
        ({"$defs": {"A": ADDRESS}, "$ref": "#/$defs/A"}, '{"street": <string>}'),
        ({"$defs": {"A": ADDRESS}, "allOf": [{"$ref": "#/$defs/A"}, {"properties": {"zip": {"type": "string"}}}]},
         '{"street": <string>, "zip": <optional string>}'),
        ({"$defs": {"Color": {"enum": ["red", "blue"]}},
          "properties": {"c": {"$ref": "#/$defs/Color", "default": "red"}}},
         '{"c": <optional "red"|"blue", default "red">}'),
        ({"$defs": {"Tree": TREE}, "properties": {"root": {"$ref": "#/$defs/Tree"}}},
         '{"root": {"children": <optional list of Tree>}}'),
        ({"properties": {"x": {"$ref": "#/$defs/Nowhere"}, "y": {"$ref": "other.json#/z"}}},
         '{"x": <optional any>, "y": <optional any>}'),
        ({"$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}},
          "properties": {"x": {"$ref": "#/$defs/A"}}},
         '{"x": <optional any>}'),
        # As Arrow exports rows, and as xLAM and draft 3 write parameters.
        ({"type": "object", "properties": {"a": {"type": "string", "enum": None}, "b": None}, "required": ["a", "b"]},
         '{"a": <string>}'),
        (None, "{}"),
        ({"type": "object", "properties": None, "required": None}, "{}"),
        ({"city": {"type": "str", "description": "Where"}, "days": {"type": "int, optional", "default": 3},
          "tags": {"type": "List[str]"}, "more": {"type": "Optional[dict]"}},
         '{"city": <string: Where>, "days": <optional integer, default 3>, "tags": <list of string>, '
         '"more": <optional object>}'),
        ({"type": {"type": "string"}}, '{"type": <string>}'),
        ({"type": "object", "properties": {"a": {"type": "string", "required": True}, "b": {"required": False}}},
         '{"a": <string>, "b": <optional any>}'),
    ],
    ids=str,
)  # fmt: skip
def test_schemas_as_others_write_them(parameters: Any, pattern: str) -> None:
    assert _arguments(parameters) == pattern


@pytest.mark.parametrize("nest", ["properties", "anyOf", "allOf", "items"])
@pytest.mark.parametrize("width", [2, 40])
def test_references_that_multiply_do_not_explode(nest: str, width: int) -> None:
    """Each of fifty definitions refers to the next one many times."""

    def level(number: int) -> dict[str, Any]:
        refs = [{"$ref": f"#/$defs/D{number + 1}"} for _ in range(width)]
        match nest:
            case "properties":
                return {"type": "object", "properties": {f"p{n}": ref for n, ref in enumerate(refs)}}
            case "items":
                return {"type": "array", "prefixItems": refs}
            case _:
                return {nest: refs}

    definitions = {f"D{number}": level(number) for number in range(50)}
    definitions["D7"] = {"type": "string", "description": "x" * 1000}
    parameters = {"$defs": definitions, "properties": {"a": {"$ref": "#/$defs/D0"}}}
    assert len(_arguments(parameters)) < 30 * len(str(parameters))


def test_deep_schemas_end() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(90):
        schema = {"type": "array", "items": schema}
    assert _arguments({"properties": {"a": schema}}).count("list of") == 8


def test_the_order_of_keys_is_as_sent() -> None:
    sent = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "string", "description": None}}}
    function = plain_function({"strict": None, "parameters": sent, "name": "f", "description": None})
    assert json.dumps(function) == (
        '{"parameters": {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "string"}}}, '
        '"name": "f"}'
    )


_HUGE = "9" * 5000


@pytest.mark.parametrize(
    ("elsewhere", "reference"),
    [
        ({"enum": 5}, "#/x"),
        ({"anyOf": 5, "oneOf": "no"}, "#/x"),
        ({"type": "object", "properties": ["a"]}, "#/x"),
        ({"type": "object", "properties": {"a": {"properties": 5, "required": 5, "type": 5}}}, "#/x"),
        ({"type": "object", "required": [["a"], {}], "properties": {"a": 5}}, "#/x"),
        ({"type": [["string"], {}, None]}, "#/x"),
        ({"allOf": [5, {"allOf": 5, "required": 5, "properties": 5, "$ref": 5}]}, "#/x"),
        ({"nullable": 5, "items": 5, "prefixItems": {}, "additionalProperties": [1]}, "#/x"),
        ([{}], f"#/x/{_HUGE}"),
        ([{}], "#/x/²"),
        ([{}], "#/x/-1"),
        (5, "#/x/0/a"),
    ],
)
def test_a_reference_to_no_schema_is_shown_anyhow(elsewhere: object, reference: str) -> None:
    """What stands under a keyword of nobody's is checked by nobody."""
    for schema in (
        {"$ref": reference},
        {"type": "array", "items": {"$ref": reference}},
        {"allOf": [{"$ref": reference}]},
    ):
        parameters = {"type": "object", "x": elsewhere, "properties": {"to": schema}}
        assert '"to": ' in tool_pattern({"name": "f", "parameters": parameters})


_TIMES = 2_000


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [{"$ref": "#/x"}] * _TIMES},
        {"allOf": [{"required": ["a"]}] * _TIMES},
        {"allOf": [{"properties": {f"p{n}": {}}} for n in range(_TIMES)]},
        {"anyOf": [{"$ref": "#/x"}] * _TIMES},
        {"properties": {f"p{n}": {"$ref": "#/x"} for n in range(_TIMES)}},
        {"properties": {f"p{n}": {"$ref": "#/large", "title": "t"} for n in range(_TIMES)}},
        {"properties": {f"p{n}": {"$ref": "#/demanding"} for n in range(_TIMES)}},
        {"type": ["string"] * _TIMES, "format": "y" * _TIMES},
        {"type": [f"kind{n}" for n in range(_TIMES)], "format": "y" * _TIMES},
        {"type": ["object"] * _TIMES, "properties": {f"p{n}": {} for n in range(_TIMES)}},
    ],
    ids=lambda schema: "-".join(schema),
)
def test_no_schema_costs_more_than_its_size(schema: dict[str, Any]) -> None:
    large = {f"unread{n}": n for n in range(_TIMES)}
    demanding = {"type": "object", "required": [f"p{n}" for n in range(_TIMES)], "properties": {"p1": {}}}
    parameters = {
        "type": "object",
        "x": {"type": "string"},
        "large": large,
        "demanding": demanding,
        "properties": {"to": schema},
    }
    tool_pattern({"name": "f", "parameters": {"properties": {"a": {"type": "string"}}}})
    steps = 0

    def count(frame: Any, event: str, argument: object) -> Any:
        nonlocal steps
        steps += event == "line"
        return count

    tracemalloc.start()
    sys.settrace(count)
    try:
        text = tool_pattern({"name": "f", "parameters": parameters})
    finally:
        sys.settrace(None)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    size = len(json.dumps(parameters))
    assert len(text) < 10 * size
    assert steps < 10 * size
    assert peak < 100 * size
