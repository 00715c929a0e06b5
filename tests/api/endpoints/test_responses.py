"""`/v1/responses` with the stock `openai` client."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel

from api.endpoints.response_reply import OutputItems
from registry.settings import Settings
from tests.api.live_api import serve
from tests.api.watched import Watch, watch

__all__ = ["watch"]

GO: dict[str, Any] = {
    "type": "function",
    "name": "go",
    "description": "Go somewhere.",
    "parameters": {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]},
}
CALL = '<tool_call>{"name": "go", "arguments": {"to": "market"}}</tool_call>'


@pytest.fixture
def url(settings: Settings, tiny_base: Path) -> Iterator[str]:
    tiny = settings.model_copy(update={"base_model": str(tiny_base), "torch_threads": 1})
    with serve(tiny, serve_model=True) as url:
        yield url


@pytest.fixture
def client(url: str, api_key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=api_key, max_retries=0) as made:
        yield made


@pytest.fixture
def http(url: str, api_key: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=60) as made:
        yield made


def respond(client: openai.OpenAI, **options: Any) -> Any:
    return client.responses.create(**{"model": "base", "input": "hi", "temperature": 0, **options})


def test_a_response_is_what_a_chat_says(client: openai.OpenAI) -> None:
    response = respond(client, max_output_tokens=20, instructions="Be brief.")
    chat: Any = client.chat.completions.create(
        model="base",
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        max_tokens=20,
        temperature=0,
    )
    assert response.output_text == chat.choices[0].message.content
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert [item.status for item in response.output] == ["incomplete"]
    assert response.usage.input_tokens == chat.usage.prompt_tokens
    assert (response.usage.output_tokens, response.usage.output_tokens_details.reasoning_tokens) == (20, 0)
    assert (response.model, response.store, response.tool_choice) == ("base", False, "auto")
    assert response.memgen == {**chat.memgen, "seconds": response.memgen["seconds"]}
    assert response.id.startswith("resp_")


def test_the_events_of_a_text(client: openai.OpenAI, watch: Watch) -> None:
    watch.say = "<think>a bit</think>Hello there."
    with respond(client, stream=True) as stream:
        events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    folded = [kind for place, kind in enumerate(kinds) if kinds[place - 1 : place] != [kind]]
    part = ["response.output_item.added", "response.content_part.added"]
    done = ["response.content_part.done", "response.output_item.done"]
    assert folded == [
        *("response.created", "response.in_progress", *part, "response.reasoning_text.delta"),
        *("response.reasoning_text.done", *done, *part, "response.output_text.delta", "response.output_text.done"),
        *(*done, "response.completed"),
    ]
    assert kinds.count("response.output_text.delta") > 3
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    last = events[-1].response
    assert "".join(deltas) == last.output_text == "Hello there."
    assert [item.type for item in last.output] == ["reasoning", "message"]
    assert last.output[0].content[0].text == "a bit"
    assert (last.status, last.usage.total_tokens > 10, last.memgen["version"]) == ("completed", True, None)
    whole = respond(client)
    assert [_without_ids(item) for item in whole.output] == [_without_ids(item) for item in last.output]


def _without_ids(item: Any) -> dict[str, Any]:
    return {name: value for name, value in item.model_dump().items() if name not in ("id", "call_id")}


def test_a_function_is_called_and_answered(client: openai.OpenAI, watch: Watch) -> None:
    watch.say = f"On my way. {CALL}"
    with client.responses.stream(model="base", input="Go to the market.", tools=[GO]) as stream:
        kinds = [event.type for event in stream]
        response: Any = stream.get_final_response()
    assert "response.function_call_arguments.delta" in kinds
    message, call = response.output
    assert (message.content[0].text, call.type, call.name) == ("On my way.", "function_call", "go")
    assert json.loads(call.arguments) == {"to": "market"}
    assert (call.status, response.status) == ("completed", "completed")
    watch.say = "You are there."
    history: list[Any] = [
        {"role": "user", "content": "Go to the market."},
        *(item.model_dump() for item in response.output),
        {"type": "function_call_output", "call_id": call.call_id, "output": "there"},
    ]
    answered = client.responses.create(model="base", input=history, tools=[GO])
    assert answered.output_text == "You are there."
    in_words = client.chat.completions.create(
        model="base",
        messages=[
            {"role": "user", "content": "Go to the market."},
            {
                "role": "assistant",
                "content": "On my way.",
                "tool_calls": [
                    {
                        "id": call.call_id,
                        "type": "function",
                        "function": {"name": "go", "arguments": call.arguments},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": call.call_id, "content": "there"},
        ],
        tools=[{"type": "function", "function": {k: v for k, v in GO.items() if k != "type"}}],
    )
    assert answered.usage is not None
    assert in_words.usage is not None
    assert answered.usage.input_tokens == in_words.usage.prompt_tokens, "the same prompt"


def test_what_is_said_behind_a_call_stands_behind_it_and_is_of_its_turn(client: openai.OpenAI, watch: Watch) -> None:
    watch.say = f"On my way. {CALL} See you."
    with respond(client, stream=True, tools=[GO]) as stream:
        streamed = list(stream)[-1].response
    whole = respond(client, tools=[GO])
    assert [_without_ids(item) for item in whole.output] == [_without_ids(item) for item in streamed.output]
    before, call, behind = whole.output
    assert (before.content[0].text, call.name, behind.content[0].text) == ("On my way.", "go", "See you.")
    user, result = {"role": "user", "content": "Go."}, {"call_id": call.call_id, "output": "there"}
    history = [user, *(item.model_dump() for item in whole.output), {"type": "function_call_output", **result}]
    function = {"name": "go", "arguments": call.arguments}
    turn = {"role": "assistant", "tool_calls": [{"id": call.call_id, "type": "function", "function": function}]}
    in_chat: Any = client.chat.completions.create(
        model="base",
        messages=[  # type: ignore[list-item]  # they are messages
            user,
            {**turn, "content": "On my way.\nSee you."},
            {"role": "tool", "tool_call_id": call.call_id, "content": "there"},
        ],
        tools=[{"type": "function", "function": {k: v for k, v in GO.items() if k != "type"}}],
    )
    assert respond(client, input=history, tools=[GO]).usage.input_tokens == in_chat.usage.prompt_tokens


def test_a_conversation_goes_on_from_what_was_recorded(client: openai.OpenAI, watch: Watch) -> None:
    watch.say = f"On my way. {CALL}"
    first = respond(client, input="Go to the market.", tools=[GO], store=True, metadata={"session_id": "s"})
    assert first.store is True
    assert client.responses.retrieve(first.id).model_dump() == first.model_dump()
    watch.say = "You are there."
    output = {"type": "function_call_output", "call_id": first.output[1].call_id, "output": "there"}
    with respond(client, input=[output], tools=[GO], store=True, previous_response_id=first.id, stream=True) as stream:
        second = list(stream)[-1].response
    assert (second.output_text, second.previous_response_id, second.store) == ("You are there.", first.id, True)
    third = respond(client, input="thanks", previous_response_id=second.id, tools=[GO])
    whole = [
        {"role": "user", "content": "Go to the market."},
        *(item.model_dump() for item in first.output),
        output,
        *(item.model_dump() for item in second.output),
        {"role": "user", "content": "thanks"},
    ]
    assert third.usage.input_tokens == respond(client, input=whole, tools=[GO]).usage.input_tokens
    assert third.store is False
    client.responses.delete(first.id)
    for call in (
        lambda: respond(client, previous_response_id=second.id),
        lambda: respond(client, previous_response_id=third.id),
        lambda: respond(client, previous_response_id="a\0b"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            call()
        assert (refused.value.code, refused.value.param) == ("previous_response_not_found", "previous_response_id")
    for call in (lambda: client.responses.retrieve(first.id), lambda: client.responses.retrieve(third.id)):
        with pytest.raises(openai.NotFoundError, match="store: true"):
            call()
    assert client.responses.retrieve(second.id).output_text == "You are there."


def test_a_recording_that_fails_is_not_claimed(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch, watch: Watch
) -> None:
    def broken(*_: object) -> None:
        raise openai_database_error

    from sqlalchemy.exc import OperationalError

    openai_database_error = OperationalError("insert", {}, Exception("away"))
    monkeypatch.setattr("api.endpoints.responses.store_response", broken)
    watch.say = "Hello."
    assert respond(client, store=True).store is False
    with respond(client, store=True, stream=True) as stream:
        last = list(stream)[-1].response
    assert (last.output_text, last.store) == ("Hello.", False)


def test_feedback_names_a_response_by_its_id(client: openai.OpenAI, http: httpx.Client) -> None:
    response = respond(client, max_output_tokens=1)
    found = http.post("/v1/feedback", json={"completion_id": response.id, "reward": 1.0})
    assert (found.status_code, found.json()["model"]) == (201, "base")


@pytest.mark.parametrize(
    ("options", "param", "words"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "OpenAI's side"),
        ({"truncation": "auto"}, "truncation", "not supported"),
        ({"background": True}, "background", "not supported"),
        ({"conversation": "conv_1"}, "conversation", "not supported"),
        ({"include": ["file_search_call.results"]}, "include[0]", "message.output_text.logprobs"),
        ({"max_output_tokens": 10**6}, "max_output_tokens", "MEMGEN_MAX_NEW_TOKENS"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]", "the item itself"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0].type", "function_call"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0]",
            "only text",
        ),
        ({"input": [{"role": "wizard", "content": "x"}]}, "input[0].role", "expected one of"),
        ({"input": []}, "input", "at least one"),
        ({"input": "x" * 5000}, "input", "context"),
        ({"extra_body": {"colour": 1}}, "colour", "Extra inputs"),
        ({"model": "nobody"}, "model", "nobody"),
        ({"tools": [{**GO, "parameters": [1]}]}, "tools[0].parameters", "an object"),
        ({"tools": [{**GO, "strict": True}]}, "tools[0].parameters", "additionalProperties"),
        ({"text": {"format": {"type": "zz"}}}, "text.format.type", "json_schema"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name", "required"),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "strict": True, "schema": {"type": "object"}}}},
            "text.format",
            "additionalProperties",
        ),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort", "not supported"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_refused(client: openai.OpenAI, options: dict[str, Any], param: str, words: str, stream: bool) -> None:
    with pytest.raises(openai.APIStatusError, match=words) as refused:
        respond(client, stream=stream, **options)
    assert refused.value.status_code == (404 if param == "model" else 400)
    assert refused.value.param == param


def test_answers_are_held_to_a_schema_and_to_a_choice(client: openai.OpenAI) -> None:
    class Report(BaseModel):
        fog: bool
        kind: Literal["thin", "thick"]

    parsed = client.responses.parse(model="base", input="hi", text_format=Report, max_output_tokens=60)
    assert isinstance(parsed.output_parsed, Report)
    strict = {**GO, "parameters": {**GO["parameters"], "additionalProperties": False}, "strict": True}
    strict["parameters"]["properties"] = {"to": {"type": "string", "enum": ["market", "sea"]}}
    for choice in ("required", {"type": "function", "name": "go"}):
        with respond(client, tools=[strict], tool_choice=choice, stream=True, max_output_tokens=120) as stream:
            response = list(stream)[-1].response
        [call] = response.output
        assert (call.name, json.loads(call.arguments)["to"] in ("market", "sea")) == ("go", True)
    with pytest.raises(openai.BadRequestError) as refused:
        respond(client, text={"format": {"type": "json_schema", "name": "x", "strict": True, "schema": {"type": "no"}}})
    assert refused.value.param == "text.format"


def test_logprobs_stand_with_the_text(client: openai.OpenAI) -> None:
    response = respond(client, max_output_tokens=4, top_logprobs=2, include=["message.output_text.logprobs"])
    logprobs = response.output[0].content[0].logprobs
    assert [len(each.top_logprobs) for each in logprobs] == [2] * 4
    assert logprobs[0].logprob <= 0


def test_logprobs_are_kept_where_a_call_follows_the_text(client: openai.OpenAI, watch: Watch) -> None:
    watch.say = f"On my way. {CALL}"
    options: dict[str, Any] = {"tools": [GO], "include": ["message.output_text.logprobs"]}
    with respond(client, stream=True, **options) as stream:
        streamed = list(stream)[-1].response
    for response in (streamed, respond(client, **options)):
        message, _ = response.output
        assert len(message.content[0].logprobs) == response.usage.output_tokens


def test_nulls_inside_of_objects_are_left_out_too(client: openai.OpenAI) -> None:
    nothing: dict[str, Any] = {
        "text": {"format": None, "verbosity": None},
        "reasoning": {"effort": None, "context": None, "mode": None},
        "input": [{"type": None, "role": "user", "content": "hi"}],
    }
    assert (
        respond(client, max_output_tokens=5, **nothing).output_text == respond(client, max_output_tokens=5).output_text
    )


def test_a_whole_call_is_completed_where_the_answer_is_cut_behind_it() -> None:
    output: list[dict[str, Any]] = []
    items = OutputItems(output, wants_logprobs=False)
    call = {"index": 0, "id": "call_1", "function": {"name": "go", "arguments": "{}"}}
    events = [*items.push({"delta": {"tool_calls": [call]}}), *items.end(whole=False)]
    assert [(item["type"], item["status"]) for item in output] == [("function_call", "completed")]
    assert events[-1]["item"]["status"] == "completed"
