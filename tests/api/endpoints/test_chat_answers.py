"""What a model may say, as `/v1/chat/completions` returns it: calls in any form, thoughts, halves of calls."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from registry.settings import Settings
from tests.api.live_api import serve
from tests.api.watched import Watch, watch

__all__ = ["watch"]

HI: list[Any] = [{"role": "user", "content": "hi"}]
GO: list[Any] = [{"type": "function", "function": {"name": "go", "parameters": {"type": "object"}}}]
CALL = '<tool_call>{"name": "go", "arguments": {"to": "x"}}</tool_call>'


@pytest.fixture
def client(settings: Settings, tiny_base: Path, api_key: str) -> Iterator[openai.OpenAI]:
    tiny = settings.model_copy(update={"base_model": str(tiny_base), "torch_threads": 1})
    with (
        serve(tiny, serve_model=True) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key=api_key, max_retries=0) as made,
    ):
        yield made


def choices(client: openai.OpenAI, **options: Any) -> list[tuple[str | None, str | None, list[Any], str]]:
    """(content, reasoning, calls, finish reason) as a completion and as a stream has them."""
    asked: dict[str, Any] = {"model": "base", "messages": HI, "max_tokens": 400, **options}
    whole = client.chat.completions.create(**asked)
    with client.chat.completions.stream(**asked) as stream:
        stream.until_done()
        added = stream.current_completion_snapshot
    found = []
    for completion in (whole, added):
        choice = completion.choices[0]
        calls = [(c.function.name, c.function.arguments) for c in choice.message.tool_calls or []]
        extra = choice.message.model_extra or {}
        found.append((choice.message.content or None, extra.get("reasoning_content"), calls, choice.finish_reason))
    return found


SAYS: list[tuple[str, str | None, str | None, list[Any], str]] = [
    (f"Wait. {CALL}", "Wait.", None, [("go", '{"to": "x"}')], "tool_calls"),
    ('<tool_call>{"name": "go", "arguments": "{\\"to\\": 1}"}</tool_call>', None, None,
     [("go", '{"to": 1}')], "tool_calls"),
    ('<tool_call>{"name": "go", "parameters": {}}', None, None, [("go", "{}")], "tool_calls"),
    ('<tool_call>{"name": "go", "arguments": {"to": "\\ud83d"}}</tool_call>', None, None,
     [("go", '{"to": "\ufffd"}')], "tool_calls"),
    ('<tool_call>{"name": "go", "arguments": {"to": NaN}}</tool_call>',
     '<tool_call>{"name": "go", "arguments": {"to": NaN}}</tool_call>', None, [], "stop"),
    (f"<think>Or {CALL}?</think>\n\nNo.", "No.", f"Or {CALL}?", [], "stop"),
    (f"<think>a</think>{CALL}", None, "a", [("go", '{"to": "x"}')], "tool_calls"),
    ("<think>\n\n</think>\n\nYes.", "Yes.", None, [], "stop"),
    ("<think>a", None, "a", [], "stop"),
    ("", None, None, [], "stop"),
]  # fmt: skip


def test_what_a_model_says_is_read(client: openai.OpenAI, watch: Watch) -> None:
    for said, *expected in SAYS:
        watch.say = said
        for found in choices(client, tools=GO):
            assert list(found) == expected, said


def test_without_tools_a_call_is_text_and_a_thought_is_none(client: openai.OpenAI, watch: Watch) -> None:
    watch.say = f"<think>a\nb</think>\n\n{CALL} <think>"
    for found in choices(client):
        assert found == (f"{CALL} <think>", "a\nb", [], "stop")


def test_the_half_of_a_call_at_the_token_limit_is_no_call_and_no_text(client: openai.OpenAI, watch: Watch) -> None:
    watch.say = f"{CALL} {CALL}"
    # In the first opening, its object and its end; and, whole but for its end, the second one.
    for kept in (5, 10, 11, 12, 20, 40, CALL.index("</") - 1, CALL.index("</"), len(CALL) - 1):
        for content, _, calls, finish_reason in choices(client, tools=GO, max_tokens=len(CALL) + 1 + kept):
            assert len(calls) == (2 if kept >= CALL.index("</") else 1)
            assert (content, finish_reason) == (None, "length")


def test_a_thought_at_the_token_limit_is_reasoning(client: openai.OpenAI, watch: Watch) -> None:
    watch.say = "<think>I wonder whether"
    for found in choices(client, max_tokens=12):
        assert found == (None, "I won", [], "length")


def test_our_own_answers_are_accepted_as_history(client: openai.OpenAI, watch: Watch) -> None:
    for said in ("", "a\0b", "\ufffd", CALL, CALL + CALL, "<think>a</think>", *(said for said, *_ in SAYS)):
        watch.say = said
        answer = client.chat.completions.create(model="base", messages=HI, tools=GO, max_tokens=400)
        message = answer.choices[0].message
        for sent in (message.model_dump(), message.model_dump(exclude_none=True)):
            results = [{"role": "tool", "tool_call_id": call.id, "content": "ok"} for call in message.tool_calls or []]
            again = client.chat.completions.create(
                model="base", messages=[*HI, sent, *results, *HI], tools=GO, max_tokens=1
            )
            assert again.usage is not None, said


def test_thoughts_come_while_they_are_thought(client: openai.OpenAI, watch: Watch) -> None:
    watch.say = "<think>ab</think>cd"
    with client.chat.completions.create(model="base", messages=HI, max_tokens=400, stream=True) as stream:
        deltas = [chunk.choices[0].delta.model_dump(exclude_none=True) for chunk in stream]
    told = [(d.get("reasoning_content"), d.get("content")) for d in deltas[1:-1]]
    assert told == [("a", None), ("b", None), (None, "c"), (None, "d")]


def test_a_stream_is_json_in_ascii(client: openai.OpenAI, watch: Watch) -> None:
    watch.say = "\u2028<think>\ud7ff\U0001f389"
    url, headers = f"{client.base_url}chat/completions", {"Authorization": f"Bearer {client.api_key}"}
    body = {"model": "base", "messages": HI, "max_tokens": 400, "stream": True}
    data = httpx.post(url, json=body, headers=headers, timeout=60).content
    events = data.decode("ascii").split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(json.loads(event.removeprefix("data: ")) for event in events[:-2])
