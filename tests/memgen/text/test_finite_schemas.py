"""Schemas that no answer could satisfy and end, by cases and against what a search finds."""

import time
from typing import Any

import pytest

from memgen.errors import SchemaRefused
from memgen.text.json_schemas import check_bounds


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


ENDLESS = {
    "requires_itself": _object(next={"$ref": "#"}),
    "by_a_definition": {**_object(a={"$ref": "#/$defs/a"}), "$defs": {"a": _object(b={"$ref": "#/$defs/a"})}},
    "in_turns": {
        **_object(a={"$ref": "#/$defs/a"}),
        "$defs": {"a": _object(b={"$ref": "#/$defs/b"}), "b": _object(a={"$ref": "#/$defs/a"})},
    },
    "every_option": _object(a={"anyOf": [{"$ref": "#"}, _object(b={"$ref": "#"})]}),
    "one_option": _object(a={"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a"}]}, b={"type": "string"})
    | {"$defs": {"a": _object(b={"$ref": "#/$defs/a"})}},
    "items_that_must_be_there": _object(a={"type": "array", "items": {"$ref": "#"}, "minItems": 1}),
    "no_value": _object(a={"enum": []}),
    "no_type": _object(a={"type": []}),
    "nothing_allowed": _object(a={"type": "array", "minItems": 1, "items": False}),
}
FINITE = {
    "a_list": _object(next={"anyOf": [{"$ref": "#"}, {"type": "null"}]}),
    "a_tree": _object(children={"type": "array", "items": {"$ref": "#"}}),
    "not_required": {"type": "object", "properties": {"next": {"$ref": "#"}}},
    "another_type": {"type": ["object", "null"], "properties": {"next": {"$ref": "#"}}, "required": ["next"]},
    "must_not_be": {"type": "object", "properties": {"a": {"type": "string", "not": {"enum": []}}}},
    "unknown_reference": _object(a={"$ref": "https://example.com/other"}),
    "first_items": _object(a={"type": "array", "minItems": 1, "prefixItems": [{"type": "string"}], "items": False}),
    "a_constant": _object(a={"const": 1}),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_never_ends_is_refused(name: str) -> None:
    with pytest.raises(SchemaRefused, match="no finite JSON satisfies the schema"):
        check_bounds(ENDLESS[name])


@pytest.mark.parametrize("name", FINITE)
def test_what_may_end_is_taken(name: str) -> None:
    check_bounds(FINITE[name])


def test_long_chains_are_followed_in_linear_time() -> None:
    definitions = {f"d{n}": _object(a={"$ref": f"#/$defs/d{n + 1}"}) for n in range(900)}
    schema = {**_object(a={"$ref": "#/$defs/d0"}), "$defs": {**definitions, "d900": {"type": "string"}}}
    wide = _object(**{f"p{n}": {"anyOf": [{"type": "null"}, {"type": "string"}]} for n in range(1000)})

    def seconds() -> float:
        began = time.process_time()
        check_bounds(schema)
        check_bounds(wide)
        return time.process_time() - began

    # The quickest of some: on a busy machine one alone may take six times as long as it needs.
    assert min(seconds() for _ in range(5)) < 1.0
    endless = schema | {"$defs": {**definitions, "d900": _object(a={"$ref": "#/$defs/d0"})}}
    with pytest.raises(SchemaRefused):
        check_bounds(endless)
