"""Every method of the client, described with what its annotations ask for: what it would send, and what it reads."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, Unpack, get_args, get_origin, get_type_hints, is_typeddict

from memgen_client.answers import json_object
from memgen_client.calls import Call, Chunks, Follow, Noun, Pages, Wait, many, once
from memgen_client.client import Nouns

_PLAIN: dict[Any, Any] = {str: "x", int: 1, float: 0.5, bool: True, Path: Path("x")}


@dataclass(frozen=True)
class Described:
    name: str
    """`adapters.create`"""
    call: Call[Any]


class _Nothing:
    def one(self, call: Any) -> Any:
        raise AssertionError("nothing is sent")

    many = one


def nouns() -> dict[str, Noun[Any]]:
    return dict(vars(Nouns[Any](_Nothing())))


def methods() -> Iterator[tuple[str, Noun[Any], "once[..., Any] | many[..., Any]"]]:
    for name, noun in nouns().items():
        for attribute, found in inspect.getmembers(type(noun), lambda member: isinstance(member, once | many)):
            yield f"{name}.{attribute}", noun, found


def every_call() -> list[Described]:
    """Each method twice: with nothing but what it needs, and with everything."""
    found = []
    for name, noun, method in methods():
        for whole in (False, True):
            args, options = _arguments(method.describe, whole)
            found.append(Described(name, _as_call(method.describe(noun, *args, **options))))
    return found


def _as_call(described: Any) -> Call[Any]:
    match described:
        case Pages():
            return described.call.at("x", 1)
        case Follow() | Wait():
            return Call("GET", described.path, json_object())
        case Chunks():
            return Call("POST", described.path, json_object(), body=described.body, headers=described.headers)
    assert isinstance(described, Call)
    return described


def _arguments(describe: Callable[..., Any], whole: bool) -> tuple[list[Any], dict[str, Any]]:
    args, options = [], {}
    for parameter in [*inspect.signature(describe).parameters.values()][1:]:
        if parameter.kind is parameter.VAR_KEYWORD:
            assert get_origin(parameter.annotation) is Unpack
            [typed] = get_args(parameter.annotation)
            options |= _sample(typed) if whole else {}
        elif parameter.default is parameter.empty and parameter.kind is not parameter.KEYWORD_ONLY:
            args.append(_sample(parameter.annotation))
        elif whole or parameter.default is parameter.empty:
            options[parameter.name] = _sample(parameter.annotation)
    return args, options


def _sample(kind: Any) -> Any:
    """A value of the annotated type."""
    origin, args = get_origin(kind), get_args(kind)
    if kind in _PLAIN:
        return _PLAIN[kind]
    if is_typeddict(kind):
        return {name: _sample(each) for name, each in get_type_hints(kind).items()}
    if origin is Literal:
        return args[0]
    if origin in (Union, UnionType):
        return _sample(next(each for each in args if each is not type(None)))
    if origin is Sequence:
        return [_sample(args[0])]
    if origin is Mapping:
        return {}
    if origin is Callable:
        return lambda *_: None
    raise AssertionError(f"no sample of {kind}")
