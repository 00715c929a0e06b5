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
_LEAST_REFERRED_CHARACTERS = 4_000
_REFERRED_SHARE = 4
"""The text may have so many times the characters of its schema from what references lead to."""


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

    def arguments(self) -> str:
        found, _ = self._found(self._root)
        return self._object(found, 0)

    def _object(self, schema: dict[str, Any], depth: int) -> str:
        required = schema.get("required")
        names = set(required) if isinstance(required, list) else set()
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
            return _any_of(self._type({**schema, "type": kind}, depth + 1) for kind in kinds)
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
        return f"{kind} ({_line(schema['format'])})" if schema.get("format") else kind

    def _inner(self, given: Any, depth: int) -> str:
        before = len(self._following)
        schema, name = self._found(given)
        text = name or self._type(schema, depth + 1)
        del self._following[before:]
        return text

    def _found(self, given: Any) -> tuple[dict[str, Any], str | None]:
        """The schema without references and `allOf`; and its name instead, where it is not to be followed."""
        schema = given if isinstance(given, dict) else {}
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
                self._left -= len(reference)
                schema = _merged(beside, [self._target(reference)])
            elif isinstance(parts, list):
                schema = _merged({key: value for key, value in schema.items() if key != "allOf"}, parts)
            else:
                return schema, None
        return {}, None

    def _target(self, reference: str) -> dict[str, Any]:
        """What a JSON pointer leads to in this function's parameters; nothing is known of others."""
        found: Any = self._root
        if not reference.startswith("#"):
            return {}
        for part in filter(None, reference[1:].split("/")):
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            elif isinstance(found, dict):
                found = found.get(key)
            else:
                return {}
        return found if isinstance(found, dict) else {}

    def _count(self, text: str) -> None:
        if self._following:
            self._left -= len(text)


def _merged(schema: dict[str, Any], parts: list[Any]) -> dict[str, Any]:
    """One schema for all that hold at once: properties of each, other keywords of the first that has them."""
    merged = dict(schema)
    for part in parts:
        if not isinstance(part, dict):
            continue
        for key, value in part.items():
            known = merged.get(key)
            if key == "properties" and isinstance(known, dict) and isinstance(value, dict):
                merged[key] = {**value, **known}
            elif key in ("required", "allOf") and isinstance(known, list) and isinstance(value, list):
                merged[key] = [*known, *value]
            elif key not in merged:
                merged[key] = value
            elif key == "$ref":
                merged["allOf"] = [*merged.get("allOf", ()), {"$ref": value}]
    return merged


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
