"""JSON schemas of requests: what strict ones must say, and the form in which a grammar is made of them.

A strict schema is of the subset that OpenAI takes: every object requires all its properties and allows no others. Other
schemas are held to as well as they can be: what a grammar can't express is left out. Knows no tokenizer, no request.
"""

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from memgen.errors import SchemaRefused
from memgen.text.finite_schemas import empty_schemas

MOST_BYTES = 120_000
"""The longest JSON text of a schema; OpenAI's strict ones may have as many characters in names and values."""
MOST_COUNTED = 10_000
"""Items, characters or properties that a keyword may count: grammars unroll them."""
_MOST_MULTIPLE = 1_000
"""The largest divisor, in units of its last digit; a grammar has a state for each rest."""
_MOST_DEPTH = 64
_MOST_HOPS = 64
"""References from one to the next until something is found."""
_MOST_DIGITS = 300
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "not", "contains", "propertyNames", "if", "then", "else")
_NOT_DEMANDED = {"not", "if"}
"""What stands under these need not be satisfied."""
_OPTIONS = "x-guidance"
"""Where the grammar's compiler looks for its own options. Ours only."""
_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON in one line, as Python writes it and as calls are spelled: space without end is no answer."""
ANY_OBJECT: dict[str, Any] = {"type": "object"}
NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


def check_strict(schema: Mapping[str, Any]) -> None:
    """Raises SchemaRefused, with the place, unless the schema is one that OpenAI takes as strict."""
    if schema.get("type") != "object":
        raise SchemaRefused(f"schema must be a JSON schema of 'type: \"object\"', got {_kind(schema)}")
    for place, part in subschemas(schema):
        where = f"In context={place}, "
        if "oneOf" in part or "allOf" in part:
            name = "oneOf" if "oneOf" in part else "allOf"
            raise SchemaRefused(f"{where}'{name}' is not permitted; expected 'anyOf'")
        kinds = part.get("type")
        if kinds != "object" and not (isinstance(kinds, list) and "object" in kinds) and "properties" not in part:
            continue
        if part.get("additionalProperties") is not False:
            raise SchemaRefused(f"{where}'additionalProperties' is required to be supplied and to be false.")
        names = list(part.get("properties") or {})
        required = part.get("required") or []
        if sorted(map(str, required)) != sorted(names):
            missing = next((name for name in names if name not in required), None)
            extra = next((name for name in required if name not in names), None)
            more = f" Missing '{missing}'." if missing is not None else f" Extra required key '{extra}' supplied."
            raise SchemaRefused(
                f"{where}'required' is required to be supplied and to be an array including every key in properties."
                f"{more}"
            )


def check_bounds(schema: Any) -> None:
    """Raises SchemaRefused where a schema is no schema, or would cost too much to be held to."""
    if not isinstance(schema, Mapping):
        raise SchemaRefused(f"schema is {_kind(schema)}; expected a JSON schema, an object")
    try:
        size = len(json.dumps(schema, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        raise SchemaRefused("schema holds half of a surrogate pair, which is no text") from None
    except RecursionError:
        size = 0
    if not size or any(len(place) > 2 * _MOST_DEPTH for place, _ in subschemas(schema)):
        raise SchemaRefused(f"schema is nested more than {_MOST_DEPTH} levels deep")
    if size > MOST_BYTES:
        raise SchemaRefused(f"schema has {size} bytes as JSON; expected at most {MOST_BYTES}")
    for place, part in subschemas(schema):
        if "$ref" in part and _is_circle(schema, part):
            raise SchemaRefused(f"In context={place}, '$ref' leads to itself: no JSON satisfies it")
        for name in _COUNTS:
            if isinstance(part.get(name), int | float) and part[name] > MOST_COUNTED:
                raise SchemaRefused(f"In context={place}, '{name}' is more than {MOST_COUNTED}")
        for name in _LIMITS:
            if isinstance(part.get(name), int) and abs(part[name]) >= 10**_MOST_DIGITS:
                raise SchemaRefused(f"In context={place}, '{name}' has more than {_MOST_DIGITS} digits")
        if "multipleOf" in part and not _divides_cheaply(part["multipleOf"]):
            raise SchemaRefused(
                f"In context={place}, 'multipleOf' is not supported beyond {_MOST_MULTIPLE} units of its last digit"
            )
    _check_finite(schema)


def _check_finite(schema: Mapping[str, Any]) -> None:
    """Raises SchemaRefused where an answer could never end: what it must be, or one of what it may be, has no end."""
    parts = list(subschemas(schema))
    empty = empty_schemas((part for _, part in parts), lambda reference: _target(schema, reference))
    for place, part in parts:
        if id(part) in empty and not _NOT_DEMANDED.intersection(place):
            raise SchemaRefused(
                f"In context={place}, no finite JSON satisfies the schema: it requires itself, or no value is left"
            )


def subschemas(schema: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """The schema and every schema in it, each with its place, as OpenAI names it."""
    waiting: list[tuple[tuple[str, ...], Any]] = [(place, schema)]
    while waiting:
        at, part = waiting.pop()
        if not isinstance(part, Mapping):
            continue
        yield at, part
        for name in _BY_NAME:
            inner = part.get(name)
            if isinstance(inner, Mapping):
                waiting += [((*at, name, str(key)), value) for key, value in inner.items()]
        for name in _LISTS:
            listed = part.get(name)
            if isinstance(listed, list):
                waiting += [((*at, name, str(number)), value) for number, value in enumerate(listed)]
        waiting += [((*at, name), part[name]) for name in _SINGLE if name in part]


def grammar_schema(schema: Mapping[str, Any], *, strict: bool) -> str:
    """The schema as the text that a grammar is made of; JSON with the compiler's options at its root.

    Objects that name properties, and say nothing of others, get no others: a part of what the schema allows, and an
    end to what a small model makes up. With `strict` an unknown keyword is an error; else it is passed over, and
    `oneOf` is read as `anyOf`.
    """
    closed = all("allOf" not in part and "unevaluatedProperties" not in part for _, part in subschemas(schema))
    plain = _closed(schema) if closed else dict(schema)
    options = _COMPACT if strict else {**_COMPACT, "lenient": True, "coerce_one_of": True}
    return json.dumps({**plain, _OPTIONS: options}, ensure_ascii=False)


def _closed(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    closed: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _BY_NAME and isinstance(value, Mapping):
            closed[key] = {name: _closed(each) for name, each in value.items()}
        elif key in _LISTS and isinstance(value, list):
            closed[key] = [_closed(each) for each in value]
        else:
            closed[key] = _closed(value) if key in _SINGLE else value
    if isinstance(closed.get("properties"), dict) and "patternProperties" not in closed and "$ref" not in closed:
        closed.setdefault("additionalProperties", False)
    return closed


def _is_circle(root: Mapping[str, Any], part: Any) -> bool:
    """Whether references lead from one to the next without end."""
    for _ in range(_MOST_HOPS):
        reference = part.get("$ref") if isinstance(part, Mapping) else None
        if not isinstance(reference, str) or not reference.startswith("#"):
            return False
        part = _target(root, reference)
    return True


def _target(root: Mapping[str, Any], reference: str) -> Any:
    """What a reference leads to; None where it leads nowhere, or elsewhere."""
    if not reference.startswith("#"):
        return None
    found: Any = root
    for step in filter(None, reference[1:].split("/")):
        name = step.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _divides_cheaply(divisor: Any) -> bool:
    if isinstance(divisor, bool) or not isinstance(divisor, int | float):
        return False
    try:
        digits = Decimal(repr(divisor)).normalize().as_tuple()
    except InvalidOperation:
        return False
    if not isinstance(digits.exponent, int) or abs(digits.exponent) > len(str(_MOST_MULTIPLE)):
        return False
    units: int = int("".join(map(str, digits.digits))) * 10 ** max(digits.exponent, 0)
    return 0 < units <= _MOST_MULTIPLE


def _kind(schema: Any) -> str:
    return f"'type: \"{schema.get('type')}\"'" if isinstance(schema, Mapping) else type(schema).__name__
