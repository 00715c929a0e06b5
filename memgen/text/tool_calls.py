"""Function tools as short text, for chat templates that know no tools.

A JSON schema spends most of its tokens on itself. A tool is written here as the very call that it expects, with a type
and description where each value goes:

    # Area of a triangle.
    {"name": "area", "arguments": {"base": <integer: Length of the base>, "unit": <optional "cm"|"m", default "cm">}}

What the answer must copy stands there in the same characters, hence the same tokens, which plain signatures,
`area(base: integer)`, do not give. How far that helps is in research/method.md.

References are followed, but no text grows by more than a multiple of its schema: a definition inside of itself, and all
of them once the text is long, are shown by their names.
"""

import json
from typing import Any

from memgen.text.tool_schemas import plain_function

_MAX_DEPTH = 8
_MAX_HOPS = 32
"""References from one to the next until a type is found."""
_MOST_DIGITS = 9
"""Digits of a place in a list that a reference may lead through."""
_LEAST_REFERRED_CHARACTERS = 4_000
_REFERRED_SHARE = 4
"""The text may have so many times the characters of its schema from what references lead to."""

_FORMATTED = ("any", "string", "number", "integer")
"""Types that a format says more of."""
_READ: dict[str, type | tuple[type, ...]] = {
    "$ref": str,
    "additionalProperties": dict,
    "allOf": list,
    "anyOf": list,
    "const": object,
    "default": object,
    "description": object,
    "enum": list,
    "format": object,
    "items": (dict, list),
    "nullable": bool,
    "oneOf": list,
    "prefixItems": list,
    "properties": dict,
    "required": list,
    "type": (str, list),
}
"""The keywords that are read, where they hold what they should: a reference may lead to anything."""


def tool_pattern(function: dict[str, Any]) -> str:
    """Description and expected call of one function of an OpenAI tools list."""
    plain = plain_function(function)
    arguments = _Pattern(plain.get("parameters") or {}).arguments()
    pattern = f'{{"name": {_json(plain["name"])}, "arguments": {arguments}}}'
    description = _line(plain.get("description"))
    return f"# {description}\n{pattern}" if description else pattern


class _Pattern:
    """The arguments of one function. Holds what its references lead to."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self._root = parameters
        self._following: list[str] = []
        """References that the text being written came by."""
        self._left = _REFERRED_SHARE * _size(parameters) + _LEAST_REFERRED_CHARACTERS
        self._readable: dict[int, tuple[Any, dict[str, Any]]] = {}
        """What was read of each schema, by its `id`, and the schema, which keeps that its own: each is read once."""

    def arguments(self) -> str:
        found, _ = self._found(self._root)
        return self._object(found, 0)

    def _object(self, schema: dict[str, Any], depth: int) -> str:
        names = {name for name in schema.get("required", ()) if isinstance(name, str)}
        members = []
        for name, value in (schema.get("properties") or {}).items():
            self._count(name)
            members.append(f"{_json(name)}: {self._value(value, name in names, depth)}")
        return f"{{{', '.join(members)}}}"

    def _value(self, given: Any, required: bool, depth: int) -> str:
        before = len(self._following)
        schema, name = self._found(given)
        if name is None and schema.get("properties") and depth < _MAX_DEPTH and _is_object(schema):
            text = self._object(schema, depth + 1)
        else:
            text = f"{'' if required else 'optional '}{name or self._type(schema, depth)}"
            if schema.get("default") not in (None, ""):
                text += f", default {_json(schema['default'])}"
            description = _line(schema.get("description"))
            text = f"<{text}: {description}>" if description else f"<{text}>"
            self._count(text)
        del self._following[before:]
        return text

    def _type(self, schema: dict[str, Any], depth: int) -> str:
        if depth >= _MAX_DEPTH:
            return "any"
        if schema.get("nullable") is True:
            return _any_of([self._type({**schema, "nullable": False}, depth), "null"])
        if "const" in schema:
            return _json(schema["const"])
        if schema.get("enum"):
            return "|".join(_json(value) for value in schema["enum"])
        if choices := schema.get("anyOf") or schema.get("oneOf"):
            return _any_of(self._inner(choice, depth) for choice in choices)
        kinds = schema.get("type")
        if isinstance(kinds, list):
            named = dict.fromkeys(kind for kind in kinds if isinstance(kind, str))
            return _any_of(self._type({**schema, "type": kind}, depth + 1) for kind in named)
        items = schema.get("prefixItems") or schema.get("items")
        if kinds == "array" or (kinds is None and items):
            if isinstance(items, list):
                return f"[{', '.join(self._inner(item, depth) for item in items)}]"
            return f"list of {self._inner(items, depth)}" if isinstance(items, dict) else "list"
        if _is_object(schema):
            if schema.get("properties"):
                return self._object(schema, depth + 1)
            values = schema.get("additionalProperties")
            return f"object of {self._inner(values, depth)}" if isinstance(values, dict) and values else "object"
        kind = "any" if kinds is None else str(kinds)
        return f"{kind} ({_line(schema['format'])})" if schema.get("format") and kind in _FORMATTED else kind

    def _inner(self, given: Any, depth: int) -> str:
        before = len(self._following)
        schema, name = self._found(given)
        text = name or self._type(schema, depth + 1)
        del self._following[before:]
        return text

    def _found(self, given: Any) -> tuple[dict[str, Any], str | None]:
        """The schema without references and `allOf`; and its name instead, where it is not to be followed."""
        schema = self._read(given)
        followed: list[str] = []
        for _ in range(_MAX_HOPS):
            parts = schema.get("allOf")
            reference = schema.get("$ref")
            if isinstance(reference, str):
                beside = {key: value for key, value in schema.items() if key != "$ref"}
                if reference in self._following or self._left <= 0:
                    if not beside.get("properties") and reference not in followed:
                        return beside, _line(reference.rpartition("/")[2].lstrip("#")) or "object"
                    schema = beside
                    continue
                followed.append(reference)
                self._following.append(reference)
                target = self._read(self._target(reference))
                self._left -= len(reference) + sum(len(target.get(key, ())) for key in ("required", "allOf"))
                schema = _merged(beside, [target])
            elif isinstance(parts, list):
                beside = {key: value for key, value in schema.items() if key != "allOf"}
                schema = _merged(beside, list(map(self._read, parts)))
            else:
                return schema, None
        return {}, None

    def _read(self, schema: Any) -> dict[str, Any]:
        if not isinstance(schema, dict):
            return {}
        if id(schema) not in self._readable:
            read = {key: schema[key] for key in _READ if key in schema and isinstance(schema[key], _READ[key])}
            self._readable[id(schema)] = schema, read
        return self._readable[id(schema)][1]

    def _target(self, reference: str) -> Any:
        """What a JSON pointer leads to in this function's parameters; nothing is known of others."""
        found: Any = self._root
        if not reference.startswith("#"):
            return {}
        for part in filter(None, reference[1:].split("/")):
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list):
                place = int(key) if key.isdecimal() and len(key) <= _MOST_DIGITS else len(found)
                found = found[place] if place < len(found) else None
            else:
                found = found.get(key) if isinstance(found, dict) else None
        return found

    def _count(self, text: str) -> None:
        if self._following:
            self._left -= len(text)


def _merged(schema: dict[str, Any], parts: list[dict[str, Any]]) -> dict[str, Any]:
    """One schema for all that hold at once: properties of each, other keywords of the first that has them."""
    merged = dict(schema)
    properties: dict[str, Any] = {}
    lists: dict[str, list[Any]] = {"required": [], "allOf": []}
    references = []
    for part in reversed([schema, *parts]):
        properties.update(part.get("properties", {}))
    for part in [schema, *parts]:
        for key, gathered in lists.items():
            gathered += part.get(key, ())
        for key, value in part.items():
            if merged.setdefault(key, value) is not value and key == "$ref":
                references.append({"$ref": value})
    lists["allOf"] += references
    return {**merged, **{key: value for key, value in {"properties": properties, **lists}.items() if value}}


def _is_object(schema: dict[str, Any]) -> bool:
    kinds = schema.get("type")
    return kinds == "object" or (kinds is None and bool(schema.get("properties")))


def _any_of(texts: Any) -> str:
    """Alternatives, each once; what may be anything is that."""
    found = dict.fromkeys(texts)
    return "any" if "any" in found or not found else "|".join(found)


def _size(schema: Any) -> int:
    try:
        return len(json.dumps(schema, default=str))
    except ValueError:  # an object inside of itself has no end
        return 0


def _line(text: Any) -> str:
    return " ".join(str(text or "").split())


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
