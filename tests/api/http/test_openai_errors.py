"""OpenAI's status, type, param and code on OpenAI's paths, whoever finds the fault; as the stock client tells them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from api.http.openai_errors import is_openai_path
from registry.settings import Settings
from tests.api.live_api import serve

CHAT = "/v1/chat/completions"
MISSING = ("nobody", "nobody@1", "nobody@" + "9" * 150, "@", "a@b")
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
def api(settings: Settings, api_key: str, tiny_base: Path) -> Iterator[httpx.Client]:
    settings = settings.model_copy(update={"base_model": str(tiny_base), "max_chat_bytes": 20_000})
    headers = {"Authorization": f"Bearer {api_key}"}
    with (
        serve(settings, serve_model=True) as url,
        httpx.Client(base_url=url, headers=headers, timeout=60) as client,
    ):
        yield client


def error_of(response: httpx.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    found: dict[str, Any] = body["error"]
    return found


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "base", "messages": HI, **fields}


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"messages": HI}, "model", "missing_required_parameter"),
        ({"model": "base"}, "messages", "missing_required_parameter"),
        (chat(colour=1), "colour", "unknown_parameter"),
        (chat(temperature=3), "temperature", "integer_above_max_value"),
        (chat(temperature=-0.5), "temperature", "decimal_below_min_value"),
        (chat(temperature="warm"), "temperature", "invalid_type"),
        (chat(messages="hi"), "messages", "invalid_type"),
        (chat(messages=["hi"]), "messages[0]", "invalid_type"),
        (chat(messages=[{"role": "wizard", "content": "x"}]), "messages[0].role", "role_unknown"),
        (chat(messages=[*HI, {"role": "user"}]), "messages[1].content", "content_missing"),
        (chat(max_tokens=10**6), "max_tokens", "max_tokens_too_large"),
        (chat(messages=[{"role": "user", "content": "x" * 5000}]), "messages", "context_length_exceeded"),
        ([], None, "invalid_type"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_body_is_a_400_that_names_its_parameter(
    api: httpx.Client, body: Any, param: str | None, code: str, stream: bool
) -> None:
    response = api.post(CHAT, json={**body, "stream": stream} if isinstance(body, dict) else body)
    error = error_of(response)
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert (error["param"], error["code"]) == (param, code), error["message"]


def test_what_is_not_there(api: httpx.Client) -> None:
    for response in (
        *(api.post(CHAT, json=chat(model=model)) for model in MISSING),
        api.get("/v1/models/nobody"),
    ):
        error = error_of(response)
        assert (response.status_code, error["type"]) == (404, "invalid_request_error")
        assert (error["param"], error["code"]) == ("model", "model_not_found")
    for method, path in (("GET", "/v1/chat/nowhere"), ("POST", "/v1/chat/a/b")):
        response = api.request(method, path)
        assert (response.status_code, error_of(response)["code"]) == (404, "unknown_url")
    for method, path, allow in (
        ("GET", CHAT, "OPTIONS, POST"),
        ("DELETE", "/v1/models", "GET, HEAD, OPTIONS"),
        ("POST", "/v1/models/base", "GET, HEAD, OPTIONS"),
        ("POST", "/v1/models/upstream/model", "GET, HEAD, OPTIONS"),
    ):
        response = api.request(method, path)
        assert (response.status_code, response.headers["allow"]) == (405, allow)
        assert error_of(response)["code"] == "method_not_supported"


def test_who_may_not_and_what_is_too_much(api: httpx.Client) -> None:
    for headers in ({"Authorization": "Bearer mg_made_up"}, {"Authorization": ""}):
        response = api.get("/v1/models", headers=headers)
        error = error_of(response)
        assert (response.status_code, error["type"], error["code"]) == (
            401,
            "invalid_request_error",
            "invalid_api_key",
        )
        assert "made_up" not in error["message"]
    writer = api.post("/v1/keys", json={"name": "w", "scopes": ["write"]}).json()["key"]
    response = api.post(CHAT, json=chat(), headers={"Authorization": f"Bearer {writer}"})
    assert (response.status_code, error_of(response)["code"]) == (403, "missing_scope")
    response = api.post(CHAT, json=chat(messages=[{"role": "user", "content": "x" * 30_000}]))
    error = error_of(response)
    assert (response.status_code, error["code"]) == (413, "request_too_large")
    assert "MEMGEN_MAX_CHAT_BYTES" in error["message"]
    response = api.post(CHAT, content=b"{", headers={"Content-Type": "application/json"})
    assert (response.status_code, error_of(response)["code"]) == (400, "invalid_json")


def test_the_stock_client_raises_its_own_exceptions(api: httpx.Client) -> None:
    key = api.headers["Authorization"].removeprefix("Bearer ")
    client = openai.OpenAI(api_key=key, base_url=f"{api.base_url}/v1", max_retries=0)
    long: Any = [{"role": "user", "content": "x" * 5000}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model="base", messages=long, stream=stream)
        assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("nobody")
    assert missing.value.code == "model_not_found"
    stranger = client.with_options(api_key="mg_made_up")
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_a_fault_of_the_server_is_a_server_error(api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr("api.endpoints.chat.list_adapters", broken)
    response = api.get("/v1/models")
    error = error_of(response)
    assert (response.status_code, error["type"], error["code"]) == (500, "server_error", "internal_error")
    assert "secret" not in response.text
    assert api.get("/v1/models/base").status_code == 200


def test_which_paths_are_openais() -> None:
    assert all(map(is_openai_path, (CHAT, "/v1/models", "/v1/models/a", "/v1/models/a/b", "/v1/chat/x", "/v1/models/")))
    assert not any(map(is_openai_path, ("/v1/modelsx", "/v1/adapters", "/", "/v1/chatter", "/x/v1/models")))
