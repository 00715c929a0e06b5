"""Whether a function call is one of the accepted ones, by the rules of BFCL's AST checker.

Strings are compared without case, spaces and the marks `,./-_*^`; an argument may be left out if "" is among its
accepted values; an int is accepted for a float, not the other way round.
"""

import re
from typing import Any

_IGNORED_MARKS = re.compile(r"[ ,./\-_*^]")


def call_matches(call: dict[str, Any], possible: dict[str, dict[str, list[Any]]]) -> bool:
    """`call` is `{"name", "arguments"}`; `possible` is `{name: {argument: [accepted values]}}`."""
    name, accepted = next(iter(possible.items()))
    return bool(call["name"] == name) and _arguments_match(call["arguments"], accepted)


def _arguments_match(arguments: dict[str, Any], accepted: dict[str, list[Any]]) -> bool:
    if any(key not in accepted for key in arguments):
        return False
    for key, options in accepted.items():
        if key not in arguments:
            if "" not in options:
                return False
        elif not any(_value_matches(arguments[key], option) for option in options):
            return False
    return True


def _value_matches(got: Any, accepted: Any) -> bool:
    if isinstance(accepted, str):
        return isinstance(got, str) and _bare(got) == _bare(accepted)
    if isinstance(accepted, bool) or isinstance(got, bool):
        return got is accepted
    if isinstance(accepted, dict):
        # Nested objects list accepted values by key, as the call itself does.
        lists = {k: v if isinstance(v, list) else [v] for k, v in accepted.items()}
        return isinstance(got, dict) and _arguments_match(got, lists)
    if isinstance(accepted, list):
        return (
            isinstance(got, list)
            and len(got) == len(accepted)
            and all(_value_matches(g, a) for g, a in zip(got, accepted, strict=True))
        )
    if isinstance(accepted, float):
        return isinstance(got, int | float) and float(got) == accepted
    return type(got) is type(accepted) and bool(got == accepted)


def _bare(text: str) -> str:
    return _IGNORED_MARKS.sub("", text).casefold().replace("'", '"')
