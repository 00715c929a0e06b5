"""The stock `openai` client as an agent: a loop with two tools, sync, async and streamed, over chat and responses."""

import asyncio
import json
import sys
from typing import Any

from openai import AsyncOpenAI, OpenAI

QUESTION = "How is the weather in the largest city of Peru?"
FUNCTIONS = {
    "find_city": ("The largest city of a country.", "country", lambda country: "Lima"),
    "weather": ("The weather in a city.", "city", lambda city: f"fog in {city}"),
}


def _function(name: str) -> dict[str, Any]:
    description, argument, _ = FUNCTIONS[name]
    parameters = {
        "type": "object", "properties": {argument: {"type": "string"}}, "required": [argument],
        "additionalProperties": False,
    }  # fmt: skip
    return {"name": name, "description": description, "parameters": parameters, "strict": True}


CHAT: dict[str, Any] = {
    "model": "base", "tools": [{"type": "function", "function": _function(name)} for name in FUNCTIONS],
}  # fmt: skip
RESPONSES: dict[str, Any] = {"model": "base", "tools": [{"type": "function", **_function(name)} for name in FUNCTIONS]}


def _result(call: Any) -> str:
    return FUNCTIONS[call.name][2](**json.loads(call.arguments))


def _told(messages: list[Any], message: Any) -> bool:
    """Whether the loop goes on; the answer and the results of its calls are added."""
    messages.append(message)
    for call in message.tool_calls or ():
        messages.append({"role": "tool", "tool_call_id": call.id, "content": _result(call.function)})
    return bool(message.tool_calls)


def sync_loop(client: OpenAI) -> list[str]:
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    ids = []
    while True:
        reply = client.chat.completions.create(messages=messages, **CHAT)
        ids.append(reply.id)
        if not _told(messages, reply.choices[0].message):
            return [*ids, reply.choices[0].message.content]


async def async_loop(client: AsyncOpenAI) -> list[str]:
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    ids = []
    while True:
        reply = await client.chat.completions.create(messages=messages, **CHAT)
        ids.append(reply.id)
        if not _told(messages, reply.choices[0].message):
            return [*ids, reply.choices[0].message.content]


def streamed_loop(client: OpenAI) -> list[str]:
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    ids = []
    while True:
        with client.chat.completions.stream(messages=messages, **CHAT) as stream:
            stream.until_done()
            reply = stream.get_final_completion()
        ids.append(reply.id)
        if not _told(messages, reply.choices[0].message):
            return [*ids, reply.choices[0].message.content]


async def async_streamed_loop(client: AsyncOpenAI) -> list[str]:
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    ids = []
    while True:
        async with client.chat.completions.stream(messages=messages, **CHAT) as stream:
            reply = await stream.get_final_completion()
        ids.append(reply.id)
        if not _told(messages, reply.choices[0].message):
            return [*ids, reply.choices[0].message.content]


def responses_loop(client: OpenAI) -> list[str]:
    sent: Any = QUESTION
    ids: list[str] = []
    while True:
        before = ids[-1] if ids else None
        reply = client.responses.create(input=sent, previous_response_id=before, store=True, **RESPONSES)
        ids.append(reply.id)
        calls = [item for item in reply.output if item.type == "function_call"]
        if not calls:
            return [*ids, reply.output_text]
        sent = [{"type": "function_call_output", "call_id": each.call_id, "output": _result(each)} for each in calls]


def recorded(url: str, key: str) -> None:
    found = {}
    for name, loop in (
        ("sync", sync_loop),
        ("async", async_loop),
        ("streamed", streamed_loop),
        ("async streamed", async_streamed_loop),
        ("responses", responses_loop),
    ):
        for headers in (None, {"X-Memgen-Task": "trips", "X-Session-Id": f"openai {name}"}):
            kind = AsyncOpenAI if name.startswith("async") else OpenAI
            client: Any = kind(base_url=f"{url}/v1", api_key=key, max_retries=0, default_headers=headers)
            done: Any = loop(client)
            *ids, answer = asyncio.run(done) if name.startswith("async") else done
            found[f"openai {name}" if headers else ids[-1]] = answer
    print(json.dumps(found))


{"recorded": recorded}[sys.argv[1]](*sys.argv[2:])
