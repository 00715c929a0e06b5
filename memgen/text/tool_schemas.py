"""Function tools in the one form that templates and patterns read, from whatever data sets and clients write.

Nulls are absent, as columnar exports write them for fields that other rows have; draft 3's `"required": true` in a
property moves to its object's list; a plain mapping of names to types with Python's names, xLAM's form, becomes
properties. The order of keys stays, since a model reads it.
"""

from collections.abc import Sequence
from typing import Any

_MAX_DEPTH = 100
_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "not", "contains", "propertyNames", "if", "then", "else")
_NEVER_NAMES = frozenset({"properties", "additionalProperties", "patternProperties", "definitions", "$defs", "$ref"})
_PYTHON_TYPES = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
    "tuple": "array",
    "set": "array",
    "dict": "object",
}


def plain_tools(tools: Sequence[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """The tools as templates expect them; None for none."""
    return [{"type": "function", "function": plain_function(tool["function"])} for tool in tools or ()] or None


def plain_function(function: dict[str, Any]) -> dict[str, Any]:
    """The function without nulls, its parameters as a JSON schema of an object if it has any."""
    plain = {key: value for key, value in function.items() if value is not None}
    if "parameters" in plain:
        parameters = plain["parameters"]
        plain["parameters"] = _plain_schema(_from_mapping(parameters) if _is_mapping(parameters) else parameters, 0)
    return plain


def _is_mapping(parameters: dict[str, Any]) -> bool:
    """Whether names stand for types directly, as in `{"city": {"type": "str"}}`, with no keyword of JSON schema."""
    if not parameters or not _NEVER_NAMES.isdisjoint(parameters):
        return False
    return all(
        isinstance(value, dict) and isinstance(value.get("type", value.get("description")), str)
        for value in parameters.values()
    )


def _from_mapping(mapping: dict[str, Any]) -> dict[str, Any]:
    required = [
        name
        for name, value in mapping.items()
        if value.get("default") is None and "optional" not in str(value.get("type")).lower()
    ]
    properties = {name: {**value, **_from_python(value.get("type"))} for name, value in mapping.items()}
    return {"type": "object", "properties": properties, "required": required}


def _from_python(kind: str | None) -> dict[str, Any]:
    """`"List[int], optional"` as a schema; a name that is not Python's stays."""
    if kind is None:
        return {}
    name = kind.strip()
    if name.lower().endswith("optional"):
        name = name[: -len("optional")].rstrip().removesuffix(",").rstrip()
    if name.lower().startswith("optional["):
        name = name[len("optional[") :].removesuffix("]")
    outer, bracket, inner = name.partition("[")
    plain = _PYTHON_TYPES.get(outer.strip().lower(), outer.strip())
    schema: dict[str, Any] = {"type": plain} if plain else {}
    if plain == "array" and bracket and "," not in inner:
        schema["items"] = {
            "type": _PYTHON_TYPES.get(item.lower(), item) if (item := inner.removesuffix("]")) else "any"
        }
    return schema


def _plain_schema(schema: Any, depth: int) -> Any:
    if not isinstance(schema, dict) or depth >= _MAX_DEPTH:
        return schema
    plain: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _BY_NAME and isinstance(value, dict):
            plain[key] = {name: _plain_schema(each, depth + 1) for name, each in value.items() if each is not None}
        elif (key in _LISTS or key == "items") and isinstance(value, list):
            plain[key] = [_plain_schema(each, depth + 1) for each in value]
        elif key in _SINGLE:
            plain[key] = _plain_schema(value, depth + 1)
        else:
            plain[key] = value
    plain = {key: value for key, value in plain.items() if value is not None or key in ("default", "const")}
    return _with_required(plain) if isinstance(plain.get("properties"), dict) else plain


def _with_required(schema: dict[str, Any]) -> dict[str, Any]:
    """The names of required properties that are there, those too whose own schema says so."""
    properties = schema["properties"]
    flagged = [name for name, value in properties.items() if isinstance(value, dict) and value.get("required") is True]
    listed = schema.get("required")
    names = dict.fromkeys([*(listed if isinstance(listed, list) else []), *flagged])
    plain_properties = {
        name: {key: value for key, value in each.items() if key != "required"}
        if isinstance(each, dict) and isinstance(each.get("required"), bool)
        else each
        for name, each in properties.items()
    }
    required = [name for name in names if name in properties]
    plain = {**schema, "properties": plain_properties, "required": required}
    if not required and not listed:
        del plain["required"]
    return plain
