"""Values that pydantic would convert, and limits that are named as they were sent; on each path that answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from registry.settings import Settings
from tests.api.live_api import serve

HI: list[Any] = [{"role": "user", "content": "hi"}]
ENDLESS = {
    "type": "object",
    "properties": {"next": {"$ref": "#"}},
    "required": ["next"],
    "additionalProperties": False,
}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HI},
    "/v1/responses": {"input": "hi"},
    "/v1/completions": {"prompt": "hi"},
    "/v1/messages": {"messages": HI, "max_tokens": 5},
}
CHAT, RESPONSES, COMPLETIONS, MESSAGES = BODIES
FORMAT = {"name": "node", "strict": True, "schema": ENDLESS}
TOOL = {"name": "go", "strict": True, "parameters": ENDLESS}


@pytest.fixture
def url(settings: Settings, tiny_base: Path) -> Iterator[str]:
    tiny = settings.model_copy(update={"base_model": str(tiny_base), "torch_threads": 1, "max_new_tokens": 64})
    with serve(tiny, serve_model=True) as url:
        yield url


@pytest.fixture
def http(url: str, api_key: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=60) as made:
        yield made


REFUSED = [
    (CHAT, {"temperature": True}, "temperature", "invalid_type"),
    (CHAT, {"temperature": "0.5"}, "temperature", "invalid_type"),
    (CHAT, {"max_tokens": True}, "max_tokens", "invalid_type"),
    (CHAT, {"max_completion_tokens": "5"}, "max_completion_tokens", "invalid_type"),
    (CHAT, {"n": True}, "n", "invalid_type"),
    (CHAT, {"seed": False}, "seed", "invalid_type"),
    (CHAT, {"top_p": True}, "top_p", "invalid_type"),
    (CHAT, {"presence_penalty": False}, "presence_penalty", "invalid_type"),
    (CHAT, {"logprobs": 1}, "logprobs", "invalid_type"),
    (CHAT, {"stream": "yes"}, "stream", "invalid_type"),
    (CHAT, {"parallel_tool_calls": 0}, "parallel_tool_calls", "invalid_type"),
    (CHAT, {"logit_bias": {" 1": 1}}, "logit_bias", "invalid_type"),
    (CHAT, {"logit_bias": {"+1": 1}}, "logit_bias", "invalid_type"),
    (CHAT, {"logit_bias": {"1_0": 1}}, "logit_bias", "invalid_type"),
    (CHAT, {"logit_bias": {"٣": 1}}, "logit_bias", "invalid_type"),
    (CHAT, {"logit_bias": {"01": 1}}, "logit_bias", "invalid_type"),
    (CHAT, {"logit_bias": {"1": True}}, "logit_bias", "invalid_type"),
    (COMPLETIONS, {"logit_bias": {" 1": 1}}, "logit_bias", "invalid_type"),
    (COMPLETIONS, {"max_tokens": True}, "max_tokens", "invalid_type"),
    (COMPLETIONS, {"logprobs": True}, "logprobs", "invalid_type"),
    (RESPONSES, {"temperature": True}, "temperature", "invalid_type"),
    (RESPONSES, {"max_output_tokens": "5"}, "max_output_tokens", "invalid_type"),
    (RESPONSES, {"store": "yes"}, "store", "invalid_type"),
    (CHAT, {"max_completion_tokens": 65}, "max_completion_tokens", "max_tokens_too_large"),
    (CHAT, {"max_tokens": 65}, "max_tokens", "max_tokens_too_large"),
    (RESPONSES, {"max_output_tokens": 65}, "max_output_tokens", "max_tokens_too_large"),
    (COMPLETIONS, {"max_tokens": 65}, "max_tokens", "max_tokens_too_large"),
    (
        CHAT,
        {"response_format": {"type": "json_schema", "json_schema": FORMAT}},
        "response_format",
        "invalid_json_schema",
    ),
    (
        CHAT,
        {"tools": [{"type": "function", "function": TOOL}]},
        "tools[0].function.parameters",
        "invalid_function_parameters",
    ),
    (RESPONSES, {"text": {"format": {"type": "json_schema", **FORMAT}}}, "text.format", "invalid_json_schema"),
]


def test_what_is_no_such_value_is_refused_by_its_name(http: httpx.Client) -> None:
    for path, fields, param, code in REFUSED:
        response = http.post(path, json={"model": "base", **BODIES[path], **fields})
        assert response.status_code == 400, (path, fields, response.text)
        error = response.json()["error"]
        assert (error["param"], error["code"]) == (param, code), (path, fields, error)


def test_the_message_names_what_was_sent(http: httpx.Client) -> None:
    refused = http.post(CHAT, json={"model": "base", "messages": HI, "max_completion_tokens": 65})
    assert refused.json()["error"]["message"].startswith("max_completion_tokens: got 65; this service allows up to 64")
    refused = http.post(MESSAGES, json={"model": "base", "messages": HI, "max_tokens": 65})
    assert refused.json()["error"]["message"].startswith("max_tokens: got 65; ")
    for fields in ({"max_tokens": True}, {"max_tokens": 5, "temperature": True}, {"max_tokens": 5, "stream": 1}):
        refused = http.post(MESSAGES, json={"model": "base", "messages": HI, **fields})
        assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")


def test_whole_floats_and_plain_values_are_taken(http: httpx.Client) -> None:
    body = {"max_tokens": 2.0, "temperature": 0, "n": 1, "seed": 3, "logit_bias": {"0": -1, "5": 0.5}, "stream": False}
    answered = http.post(CHAT, json={"model": "base", "messages": HI, **body})
    assert (answered.status_code, answered.json()["usage"]["completion_tokens"]) == (200, 2)


def test_a_recorded_response_is_not_streamed_again(url: str, api_key: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=api_key, max_retries=0) as client:
        made = client.responses.create(model="base", input="hi", max_output_tokens=3, store=True)
        assert client.responses.retrieve(made.id).id == made.id
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.retrieve(made.id, stream=True)
    assert (refused.value.code, refused.value.param) == ("stream_unsupported", "stream")


def test_models_in_anthropics_words(url: str, api_key: str) -> None:
    with anthropic.Anthropic(base_url=url, api_key=api_key, max_retries=0) as client:
        page = client.models.list()
        assert [(model.id, model.type, model.display_name) for model in page] == [("base", "model", "base")]
        assert client.models.retrieve("base").type == "model"
        with pytest.raises(anthropic.NotFoundError) as missing:
            client.models.retrieve("nobody")
        assert missing.value.body["error"]["type"] == "not_found_error"
    with anthropic.Anthropic(base_url=url, api_key="mg_made_up", max_retries=0) as stranger:
        with pytest.raises(anthropic.AuthenticationError) as refused:
            stranger.models.list()
        body: Any = refused.value.body
        assert (body["type"], body["error"]["type"]) == ("error", "authentication_error")
    # Whoever does not say that it is Anthropic's client gets OpenAI's words.
    plain = httpx.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {api_key}"}).json()
    assert plain["object"] == "list"
