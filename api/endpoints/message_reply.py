"""Replies of Anthropic's Messages API: the message, the events by which a stream tells it, and models. Pure.

Both are made of a chat's chunks, a whole reply too, so that they can't differ.
"""

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from api.endpoints.answer_stream import data_event
from api.endpoints.chat_reply import Reply
from api.endpoints.chat_stream import ChatChunks, as_streamed, own_text
from api.http.anthropic_errors import anthropic_error, anthropic_status
from api.http.json_object import JsonObject, JsonObjects
from api.http.problems import Described
from api.inference.requests import Finished, Piece

_Events = Iterator[JsonObject]

_REASONS = {"length": "max_tokens", "tool_calls": "tool_use"}
_FIELDS = {"thinking_delta": "thinking", "text_delta": "text", "input_json_delta": "partial_json"}


class MessageShape:
    """`api.endpoints.answer_stream.AnswerShape` of `/v1/messages`."""

    def __init__(self, reply: Reply) -> None:
        """`reply` is the chat's, with usage; its id is the message's."""
        self._chunks = ChatChunks(reply, 1)
        self._blocks = ContentBlocks()
        self._message: JsonObject = {
            "id": reply.id,
            "type": "message",
            "role": "assistant",
            "model": reply.resolution.label,
            "content": self._blocks.content,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage({"prompt_tokens": 0, "completion_tokens": 0}),
        }

    def whole(self, answers: Sequence[Finished]) -> JsonObject:
        if self._message["stop_reason"] is None:
            for answer in answers:
                for event in as_streamed(answer):
                    list(self.event(event))
        return self._message

    def message(self, answer: Finished) -> tuple[JsonObject, str]:
        return self._chunks.reply.message(answer)

    def opening(self) -> Iterable[str]:
        """The prompt's length is not known yet; the usage at the end has it."""
        yield _event({"type": "message_start", "message": self._message})
        yield _event({"type": "ping"})

    def event(self, event: Piece | Finished) -> Iterable[str]:
        for chunk in self._chunks.event(event):
            self._message |= {"memgen": chunk["memgen"]} if "memgen" in chunk else {}
            [choice] = chunk["choices"]
            yield from map(_event, self._blocks.push(choice["delta"]))
            if (reason := choice["finish_reason"]) is not None:
                yield from map(_event, self._blocks.end())
                self._end(reason, event.generation.stop_string if isinstance(event, Finished) else None)

    def ending(self) -> Iterable[str]:
        delta = {name: self._message[name] for name in ("stop_reason", "stop_sequence")}
        stamp = {name: self._message[name] for name in ("memgen",) if name in self._message}
        yield _event({"type": "message_delta", "delta": delta, "usage": self._message["usage"], **stamp})
        yield _event({"type": "message_stop"})

    def failure(self, error: Described) -> Iterable[str]:
        yield _event(anthropic_error(anthropic_status(error.status), error.code, error.detail))

    def _end(self, reason: str, stop: str | None) -> None:
        [usage] = [chunk["usage"] for chunk in self._chunks.ending()]
        ended = "stop_sequence" if reason == "stop" and stop is not None else _REASONS.get(reason, "end_turn")
        stop = stop if ended == "stop_sequence" else None
        self._message |= {"stop_reason": ended, "stop_sequence": stop, "usage": _usage(usage)}


class ContentBlocks:
    """The blocks of a message, filled as a chat's deltas come: thoughts, text, uses of tools."""

    def __init__(self) -> None:
        self.content: list[JsonObject] = []
        self._open: str | None = None
        """Kind of the last block, while it grows."""
        self._call: int | None = None
        """Number of the call that it is, among the answer's calls."""
        self._arguments = ""

    def push(self, delta: JsonObject) -> _Events:
        if text := delta.get("reasoning_content"):
            yield from self._turn_to("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            self.content[-1]["thinking"] += text
            yield self._delta("thinking_delta", text)
        if text := own_text(delta, behind_call=self._open == "tool_use"):
            yield from self._turn_to("text", {"type": "text", "text": ""})
            self.content[-1]["text"] += text
            yield self._delta("text_delta", text)
        for call in delta.get("tool_calls", ()):
            yield from self._push_call(call)

    def end(self) -> _Events:
        """Close what is open."""
        if self._open is None:
            return
        if self._open == "tool_use":
            self.content[-1]["input"] = json.loads(self._arguments or "{}")
        self._open = self._call = None
        yield {"type": "content_block_stop", "index": len(self.content) - 1}

    def _push_call(self, call: JsonObject) -> _Events:
        if self._open != "tool_use" or call["index"] != self._call:
            yield from self.end()
            self._call, self._arguments = call["index"], ""
            name = call["function"]["name"]
            yield from self._turn_to("tool_use", {"type": "tool_use", "id": call["id"], "name": name, "input": {}})
        if text := call["function"].get("arguments"):
            self._arguments += text
            yield self._delta("input_json_delta", text)

    def _turn_to(self, kind: str, block: JsonObject) -> _Events:
        if self._open == kind:
            return
        yield from self.end()
        self._open = kind
        self.content.append(block)
        yield {"type": "content_block_start", "index": len(self.content) - 1, "content_block": block}

    def _delta(self, kind: str, text: str) -> JsonObject:
        delta = {"type": kind, _FIELDS[kind]: text}
        return {"type": "content_block_delta", "index": len(self.content) - 1, "delta": delta}


def new_message_id() -> str:
    return f"msg_{uuid.uuid4().hex}"


def _event(event: dict[str, Any]) -> str:
    return data_event(event, event["type"])


def _usage(chat: JsonObject) -> JsonObject:
    return {
        "input_tokens": chat["prompt_tokens"],
        "output_tokens": chat["completion_tokens"],
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    }


def model_info(model: JsonObject) -> JsonObject:
    """A model of OpenAI's listing in Anthropic's words."""
    created = datetime.fromtimestamp(model["created"], UTC).isoformat()
    return {"type": "model", "id": model["id"], "display_name": model["id"], "created_at": created}


def model_list(models: JsonObjects) -> JsonObject:
    """OpenAI's listing, which has no pages, in Anthropic's words."""
    data = [model_info(model) for model in models]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"data": data, "has_more": False, "first_id": first, "last_id": last}
