"""Whether function calls are the accepted ones, by the rules of BFCL's AST checker.

Strings are compared without case, spaces and the marks `,./-_*^`; an argument may be left out if "" is among its
accepted values; an int is accepted for a float, not the other way round.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from memgen.errors import ConfigError

_IGNORED_MARKS = re.compile(r"[ ,./\-_*^]")
Call = dict[str, Any]
"""`{"name", "arguments"}`."""


def calls_match(calls: Sequence[Call], possible: Sequence[dict[str, dict[str, list[Any]]]]) -> bool:
    """Whether the calls are the possible ones in some order, each one's own."""
    return _paired(calls, possible, call_matches)


def same_calls(calls: Sequence[Call], expected: Sequence[Call]) -> bool:
    """Whether the calls are the expected ones in some order, their values compared as BFCL compares them."""
    return _paired(calls, expected, _same_call)


def check_possible(possible: Any) -> None:
    """Raise ConfigError if this is not a list of `{name: {argument: [accepted values]}}`."""
    if not isinstance(possible, list) or not all(isinstance(one, dict) and len(one) == 1 for one in possible):
        raise ConfigError(f"is {possible!r}; expected a list of {{name: {{argument: [accepted values]}}}}")
    for [(name, accepted)] in (one.items() for one in possible):
        if not isinstance(accepted, dict) or not all(isinstance(values, list) for values in accepted.values()):
            raise ConfigError(f"says {accepted!r} of {name!r}; expected {{argument: [accepted values]}}")


def call_matches(call: Call, possible: dict[str, dict[str, list[Any]]]) -> bool:
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
    return _scalar_matches(got, accepted)


def _same_call(got: Call, expected: Call) -> bool:
    return bool(got["name"] == expected["name"]) and _alike(got["arguments"], expected["arguments"])


def _alike(got: Any, expected: Any) -> bool:
    """Whether a value is the expected one, not one of several accepted: a list is a list here."""
    if isinstance(expected, dict):
        return isinstance(got, dict) and got.keys() == expected.keys() and all(_alike(got[k], expected[k]) for k in got)
    if isinstance(expected, list):
        same_length = isinstance(got, list) and len(got) == len(expected)
        return same_length and all(_alike(g, e) for g, e in zip(got, expected, strict=True))
    return _scalar_matches(got, expected)


def _scalar_matches(got: Any, accepted: Any) -> bool:
    if isinstance(accepted, str):
        return isinstance(got, str) and _bare(got) == _bare(accepted)
    if isinstance(accepted, bool) or isinstance(got, bool):
        return got is accepted
    if isinstance(accepted, float):
        return isinstance(got, int | float) and float(got) == accepted
    return type(got) is type(accepted) and bool(got == accepted)


def _paired(calls: Sequence[Call], wanted: Sequence[Any], fits: Callable[[Call, Any], bool]) -> bool:
    """Whether there is an order in which each call fits what is wanted in its place."""
    if len(calls) != len(wanted):
        return False
    if not calls:
        return True
    fitting = csr_array([[fits(call, one) for one in wanted] for call in calls])
    return bool((maximum_bipartite_matching(fitting) >= 0).all())


def _bare(text: str) -> str:
    return _IGNORED_MARKS.sub("", text).casefold().replace("'", '"')
