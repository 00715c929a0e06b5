"""Checks of the functions that a conversation offers, in OpenAI's tools format. Pure: knows no row and no message.

A schema is refused where its keywords can't mean anything, such as `"required": true` beside properties. Nulls are
absent, as columnar exports write them; a plain mapping of names to types, xLAM's form, is read as properties. How
schemas are shown to a model is not known here.
"""

from collections.abc import Iterator
from typing import Any, TypeGuard

from registry.errors import InvalidTrajectory
from registry.json_text import show

MAX_NAME_CHARACTERS = 256
"""Longest id or function name."""
EXPECTED_NAME = f"a string of 1 to {MAX_NAME_CHARACTERS} characters"

_SCHEMAS_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS_OF_SCHEMAS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SCHEMAS = ("additionalProperties", "not", "contains", "propertyNames", "if", "then", "else")

_NEVER_NAMES = frozenset({"properties", "additionalProperties", "patternProperties", "definitions", "$defs", "$ref"})
_KEYWORDS = {*_SCHEMAS_BY_NAME, *_LISTS_OF_SCHEMAS, *_SCHEMAS, "items", "type", "required", "enum", "$ref"}


def check_tools(tools: object) -> frozenset[str] | None:
    """Names of the declared functions; None without tools.

    Raises:
        InvalidTrajectory: its message names the tool, and the place in it.
    """
    if tools is None or tools == []:
        return None
    if not isinstance(tools, list):
        raise InvalidTrajectory("tools_malformed", f"tools: got {show(tools)}; expected a list of functions")
    names: set[str] = set()
    for number, tool in enumerate(tools):
        name = _check_tool(tool, f"tools[{number}]")
        if name in names:
            raise InvalidTrajectory(
                "tool_duplicate_name", f"tools[{number}].function.name: {show(name)} is declared twice"
            )
        names.add(name)
    return frozenset(names)


def is_name(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARACTERS


def _check_tool(tool: object, place: str) -> str:
    known = isinstance(tool, dict) and tool.get("type", "function") in ("function", None)
    function = tool.get("function") if isinstance(tool, dict) and known else None
    if not isinstance(function, dict):
        raise InvalidTrajectory(
            "tools_malformed",
            f'{place}: got {show(tool)}; expected {{"type": "function", "function": {{...}}}}',
        )
    name, description, parameters = (function.get(key) for key in ("name", "description", "parameters"))
    if not is_name(name):
        raise InvalidTrajectory(
            "tool_name_missing", f"{place}.function.name: got {show(name)}; expected {EXPECTED_NAME}"
        )
    if description is not None and not isinstance(description, str):
        raise InvalidTrajectory(
            "tools_malformed", f"{place}.function.description: got {show(description)}; expected a text or null"
        )
    if parameters is not None:
        _check_parameters(parameters, f"{place}.function.parameters")
    return name


def _check_parameters(parameters: object, place: str) -> None:
    if not isinstance(parameters, dict):
        raise _refusal(place, parameters, "an object")
    waiting: list[tuple[object, str]] = [(parameters, place)]
    if _is_plain_mapping(parameters):
        waiting = [(schema, f"{place}.{name}") for name, schema in parameters.items()]
    elif isinstance(parameters.get("required"), bool):
        raise _refusal(f"{place}.required", parameters["required"], "a list of parameter names")
    while waiting:
        schema, where = waiting.pop()
        if isinstance(schema, dict):
            waiting += _check_schema(schema, where)
        elif not isinstance(schema, bool):
            raise _refusal(where, schema, "a JSON schema, an object")


def _is_plain_mapping(parameters: dict[str, Any]) -> bool:
    """Whether names stand for types directly, as in `{"city": {"type": "str"}}`, with no keyword of JSON schema."""
    if not parameters or not _NEVER_NAMES.isdisjoint(parameters):
        return False
    return all(
        isinstance(value, dict) and isinstance(value.get("type", value.get("description")), str)
        for value in parameters.values()
    )


def _check_schema(schema: dict[str, Any], place: str) -> Iterator[tuple[object, str]]:
    """Refuse keywords that can't be read, and yield the schemas inside. Nulls are absent."""
    for keyword in filter(_KEYWORDS.__contains__, schema):
        value, where = schema[keyword], f"{place}.{keyword}"
        if value is None:
            continue
        if keyword in _SCHEMAS_BY_NAME:
            if not isinstance(value, dict):
                raise _refusal(where, value, "an object of schemas by name")
            yield from ((inner, f"{where}.{name}") for name, inner in value.items() if inner is not None)
        elif keyword in _LISTS_OF_SCHEMAS or (keyword == "items" and isinstance(value, list)):
            if not isinstance(value, list):
                raise _refusal(where, value, "a list of schemas")
            yield from ((inner, f"{where}[{number}]") for number, inner in enumerate(value))
        elif keyword in _SCHEMAS or keyword == "items":
            yield value, where
        elif keyword == "type":
            if not (isinstance(value, str) or _all_texts(value)):
                raise _refusal(where, value, "a type's name, or a list of them")
        elif keyword == "required":
            # In a property's own schema, draft 3's truth value says whether the property is.
            if not (isinstance(value, bool) or _all_texts(value)):
                raise _refusal(where, value, "a list of names")
        elif keyword == "enum":
            if not isinstance(value, list):
                raise _refusal(where, value, "a list of values")
        elif not isinstance(value, str):
            raise _refusal(where, value, "a text")


def _all_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _refusal(place: str, got: object, expected: str) -> InvalidTrajectory:
    return InvalidTrajectory("tool_parameters", f"{place[:400]}: got {show(got)}; expected {expected}")
