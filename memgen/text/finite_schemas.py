"""Which schemas some finite JSON satisfies: one that requires itself, or has no value to choose from, none does.

A grammar of such a schema compiles, and an answer that is held to it never ends. Keywords that this module does not
look at are taken to be satisfied, so that what it calls empty is empty.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

_KINDS = ("string", "number", "integer", "boolean", "null", "object", "array")
_Resolve = Callable[[str], Any]


def empty_schemas(parts: Iterable[Mapping[str, Any]], resolve: _Resolve) -> set[int]:
    """The schemas, by `id`, that no finite JSON satisfies. Linear in the size of all.

    Args:
        parts: a schema and all schemas in it.
        resolve: the schema that a reference leads to; None where it is not known.
    """
    rules = _Rules()
    listed = list(parts)
    for part in listed:
        _add(rules, part, resolve)
    finite = rules.follow()
    return {id(part) for part in listed if id(part) not in finite}


class _Rules:
    """What follows from what: a fact holds once all of the facts of one of its rules do."""

    def __init__(self) -> None:
        self._heads: list[object] = []
        self._missing: list[int] = []
        self._used_by: dict[object, list[int]] = {}

    def add(self, head: object, needs: Iterable[object] = ()) -> None:
        distinct = set(needs)
        for fact in distinct:
            self._used_by.setdefault(fact, []).append(len(self._heads))
        self._heads.append(head)
        self._missing.append(len(distinct))

    def follow(self) -> set[object]:
        """All facts that hold."""
        found: set[object] = set()
        waiting = [head for head, missing in zip(self._heads, self._missing, strict=True) if missing == 0]
        while waiting:
            fact = waiting.pop()
            if fact in found:
                continue
            found.add(fact)
            for rule in self._used_by.get(fact, ()):
                self._missing[rule] -= 1
                if self._missing[rule] == 0:
                    waiting.append(self._heads[rule])
        return found


def _add(rules: _Rules, part: Mapping[str, Any], resolve: _Resolve) -> None:
    """The rules of one schema: it is satisfied where all that it demands is."""
    me, needs = id(part), list[object]([(id(part), "value")])
    _add_value(rules, part)
    if isinstance(reference := part.get("$ref"), str) and (target := resolve(reference)) is not None:
        needs.append(_fact(rules, target))
    for name in ("anyOf", "oneOf"):
        if isinstance(options := part.get(name), list):
            needs.append((me, name))
            for option in options:
                rules.add((me, name), [_fact(rules, option)])
    if isinstance(demands := part.get("allOf"), list):
        needs += [_fact(rules, demand) for demand in demands]
    rules.add(me, needs)


def _add_value(rules: _Rules, part: Mapping[str, Any]) -> None:
    """A value of one of its types is there, with all that must be in it."""
    value = (id(part), "value")
    if isinstance(values := part.get("enum"), list):
        if values:
            rules.add(value)
        return
    kinds = part.get("type", _KINDS)
    for kind in [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list | tuple) else _KINDS:
        if kind == "object":
            rules.add(value, [_fact(rules, each) for each in _required(part)])
        elif kind == "array":
            rules.add(value, [_fact(rules, each) for each in _items(part)])
        else:
            rules.add(value)


def _required(part: Mapping[str, Any]) -> Iterable[Any]:
    properties, names = part.get("properties"), part.get("required")
    if not isinstance(properties, Mapping) or not isinstance(names, list):
        return ()
    return [properties[name] for name in names if isinstance(name, str) and name in properties]


def _items(part: Mapping[str, Any]) -> Iterable[Any]:
    """The schemas of items that must be there."""
    least = part.get("minItems")
    if not isinstance(least, int | float) or least < 1:
        return ()
    first = part.get("prefixItems")
    listed = first[: int(least)] if isinstance(first, list) else []
    return [*listed, *([part["items"]] if "items" in part and least > len(listed) else [])]


def _fact(rules: _Rules, schema: Any) -> object:
    """The fact that a schema is satisfied: what is no schema is no reason against it, and `false` is never."""
    if isinstance(schema, Mapping):
        return id(schema)
    if schema is False:
        return "never"
    rules.add("always")
    return "always"
