"""The client against the service's own document: every route, parameter, body and answer has its place in it."""

import re
from collections import defaultdict
from datetime import datetime
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import pytest

from memgen_client.calls import Call
from memgen_client.models.model import Model
from registry.settings import Settings
from tests.api.http.every_route import OPERATIONS, create_app
from tests.packages.client.every_call import Described, every_call, methods

CALLS = every_call()
ROUTES = {(method, path): operation for method, path, operation in OPERATIONS if operation}
FOREIGN = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses", "/v1/traces", "/v1/trajectories")
"""Paths whose bodies are other APIs' words, of which the client names some, or trajectories."""
UNSENT = {"after", "stream"}
"""Query parameters that the client says otherwise, by `Last-Event-ID`, or that are refused."""


@cache
def document() -> dict[str, Any]:
    return create_app(Settings(database_url=None), serve_model=False).openapi()


def route_of(call: Call[Any]) -> tuple[str, str] | None:
    """The route that a call goes to: of those that its path fits, the one with the fewest holes."""
    fitting = [
        (method, path)
        for method, path in ROUTES
        if method == call.method and re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path)), call.path)
    ]
    return min(fitting, key=lambda each: each[1].count("{"), default=None)


@cache
def calls_by_route() -> dict[tuple[str, str], list[Described]]:
    found: dict[tuple[str, str], list[Described]] = defaultdict(list)
    for described in CALLS:
        route = route_of(described.call)
        assert route is not None, f"{described.name} goes to {described.call.method} {described.call.path}, no route"
        found[route].append(described)
    return found


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def test_every_route_has_a_method() -> None:
    wanted = {route for route, operation in ROUTES.items() if not operation.get("deprecated")}
    assert wanted - set(calls_by_route()) == set(), "routes that no method of packages/memgen-client goes to"
    assert len(wanted) > 80


@pytest.mark.parametrize("route", sorted(ROUTES), ids=" ".join)
def test_queries_are_those_of_the_route(route: tuple[str, str]) -> None:
    found = calls_by_route().get(route)
    if found is None:
        return
    sent = {name for each in found for name in each.call.params}
    parameters = [each for each in ROUTES[route].get("parameters", ()) if each["in"] == "query"]
    known = {each["name"] for each in parameters}
    assert (sent - known, known - sent - UNSENT) == (set(), set())


@pytest.mark.parametrize("route", sorted(ROUTES), ids=" ".join)
def test_bodies_are_those_of_the_route(route: tuple[str, str]) -> None:
    found = calls_by_route().get(route)
    content = ROUTES[route].get("requestBody", {}).get("content", {})
    if found is None or "application/json" not in content or route[1].removesuffix("/count_tokens") in FOREIGN:
        return
    if all(each.call.content is not None for each in found):
        return  # a file
    known = set(resolved(content["application/json"]["schema"])["properties"])
    sent = {name for each in found for name in each.call.body or ()}
    assert (sent - known, known - sent) == (set(), set())


def test_options_of_answers_are_the_service_s() -> None:
    for route in (("POST", "/v1/chat/completions"), ("POST", "/v1/completions")):
        sent = {name for each in calls_by_route()[route] for name in each.call.body or ()}
        content = ROUTES[route]["requestBody"]["content"]["application/json"]
        assert len(sent) > 10
        assert sent - set(resolved(content["schema"])["properties"]) == set()


def test_creations_that_the_service_does_once_have_a_key() -> None:
    keyed = {
        route
        for route, operation in ROUTES.items()
        if any(each["name"].lower() == "idempotency-key" for each in operation.get("parameters", ()))
    }
    sent = {route for route, found in calls_by_route().items() if "Idempotency-Key" in found[0].call.headers}
    assert sent == keyed
    assert len(keyed) >= 4


@pytest.mark.parametrize("route", sorted(ROUTES), ids=" ".join)
def test_answers_are_those_of_the_route(route: tuple[str, str]) -> None:
    answers = [each for code, each in ROUTES[route]["responses"].items() if code in ("200", "201", "202")]
    schema = resolved(answers[0].get("content", {}).get("application/json", {}).get("schema", {})) if answers else {}
    for described in calls_by_route().get(route, ()):
        answer = described.call.answer
        if answer.model is None or "properties" not in schema:
            continue
        of = schema
        if answer.form != "one":
            assert ("next_cursor" in schema["properties"]) or answer.form == "rows"
            of = schema["properties"]["data"]["items"]
        compare(of, answer.model, described.name)


def compare(schema: dict[str, Any], model: type[Model], place: str) -> None:
    """Names, types and what may be null, as deep as the model goes."""
    kinds = [resolved(each) for each in resolved(schema).get("anyOf", [schema])]
    properties = {name: each for kind in kinds for name, each in kind["properties"].items()}
    current = {name for name, each in properties.items() if not each.get("deprecated")}
    fields = model.model_fields
    assert current - set(fields) == set(), f"{model.__name__} of {place} lacks what the service says"
    assert set(fields) - set(properties) == set(), f"{model.__name__} of {place} has what the service does not say"
    for name in current:
        compare_value(properties[name], fields[name].annotation, f"{place}: {model.__name__}.{name}")


def compare_value(schema: dict[str, Any], kind: Any, place: str) -> None:
    options = [resolved(each) for each in resolved(schema).get("anyOf", [schema])]
    may_be_null = any(each.get("type") == "null" for each in options)
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    assert not may_be_null or NoneType in kinds, f"{place} may be null"
    rest = [each for each in options if each.get("type") != "null"]
    [own] = [each for each in kinds if each is not NoneType] or [None]
    if len(rest) != 1 or own is None:
        return
    found, origin, args = rest[0], get_origin(own), get_args(own)
    if origin is None and isinstance(own, type) and issubclass(own, Model):
        compare(found, own, place)
        return
    match found.get("type"):
        case "array":
            assert origin is list, place
            if "items" in found:
                compare_value(found["items"], args[0], place)
        case "object":
            assert origin is dict, place
            if isinstance(found.get("additionalProperties"), dict):
                compare_value(found["additionalProperties"], args[1], place)
        case "string":
            assert own is (datetime if found.get("format") == "date-time" else str), place
        case "integer":
            assert own is int, place
        case "number":
            assert own is float, place
        case "boolean":
            assert own is bool, place


def test_no_answer_is_anything() -> None:
    """No `Any` in what a method returns, nor in a field of what it returns."""
    seen: set[type[Model]] = set()
    for name, _, method in methods():
        returned = method.describe.__annotations__["return"]
        _check_typed(returned, name, seen)
    assert len(seen) > 40


def _check_typed(kind: Any, place: str, seen: set[type[Model]]) -> None:
    assert kind is not Any, f"{place} is Any"
    for each in get_args(kind):
        _check_typed(each, place, seen)
    if get_origin(kind) is None and isinstance(kind, type) and issubclass(kind, Model) and kind not in seen:
        seen.add(kind)
        for name, field in kind.model_fields.items():
            _check_typed(field.annotation, f"{kind.__name__}.{name}", seen)
