"""Replies of the Responses API: the response, and the events by which a stream tells it. Pure.

Both are made of a chat's chunks, a whole reply too, so that they can't differ.
"""

import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from api.endpoints.answer_stream import data_event
from api.endpoints.chat_reply import Reply
from api.endpoints.chat_stream import ChatChunks, as_streamed, own_text
from api.endpoints.response_models import ResponseIn
from api.http.json_object import JsonObject
from api.http.problems import Described
from api.inference.requests import Finished, Piece

_Events = Iterator[JsonObject]

_ERROR_CODES = {429: "rate_limit_exceeded"}


class ResponseShape:
    """`api.endpoints.answer_stream.AnswerShape` of `/v1/responses`."""

    def __init__(self, body: ResponseIn, reply: Reply) -> None:
        """`reply` is the chat's, with usage; its id is the response's."""
        self._chunks = ChatChunks(reply, 1)
        self._response = _begun(body, reply)
        self._output = OutputItems(self._response["output"], wants_logprobs=bool(body.include or body.top_logprobs))
        self._sent = 0

    def whole(self, answers: Sequence[Finished]) -> JsonObject:
        if self._response["status"] == "in_progress":
            for answer in answers:
                for event in as_streamed(answer):
                    list(self.event(event))
        return self._response

    def message(self, answer: Finished) -> tuple[JsonObject, str]:
        return self._chunks.reply.message(answer)

    def opening(self) -> Iterable[str]:
        for kind in ("response.created", "response.in_progress"):
            yield self._event({"type": kind, "response": self._response})

    def event(self, event: Piece | Finished) -> Iterable[str]:
        for chunk in self._chunks.event(event):
            self._response |= {"memgen": chunk["memgen"]} if "memgen" in chunk else {}
            [choice] = chunk["choices"]
            yield from map(self._event, self._output.push(choice))
            if (reason := choice["finish_reason"]) is not None:
                yield from map(self._event, self._output.end(whole=reason != "length"))
                self._end(reason)

    def ending(self) -> Iterable[str]:
        yield self._event({"type": f"response.{self._response['status']}", "response": self._response})

    def failure(self, error: Described) -> Iterable[str]:
        code = _ERROR_CODES.get(error.status, "server_error" if error.status >= 500 else "invalid_prompt")
        self._response |= {"status": "failed", "error": {"code": code, "message": error.detail}}
        yield self._event({"type": "response.failed", "response": self._response})

    def _end(self, reason: str) -> None:
        [usage] = [chunk["usage"] for chunk in self._chunks.ending()]
        cut = reason == "length"
        self._response |= {
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "completed_at": None if cut else int(time.time()),
            "usage": _usage(usage),
        }

    def _event(self, event: JsonObject) -> str:
        numbered = {**event, "sequence_number": self._sent}
        self._sent += 1
        return data_event(numbered, event["type"])


class OutputItems:
    """The items of a response, filled as a chat's deltas come: thoughts, a message, calls of functions."""

    def __init__(self, output: list[JsonObject], *, wants_logprobs: bool) -> None:
        self._output = output
        self._open: JsonObject | None = None
        """The last item, while it grows."""
        self._call: int | None = None
        """Number of the call that it is, among the answer's calls."""
        self._logprobs: list[JsonObject] | None = [] if wants_logprobs else None

    def push(self, choice: JsonObject) -> _Events:
        """The events of one choice of a chat's chunk."""
        delta = choice["delta"]
        if self._logprobs is not None and choice.get("logprobs"):
            self._logprobs += [_logprob(each) for each in choice["logprobs"]["content"]]
        if text := delta.get("reasoning_content"):
            yield from self._turn_to("reasoning")
            yield from self._grow("response.reasoning_text.delta", text)
        if text := own_text(delta, behind_call=self._call is not None):
            yield from self._turn_to("message")
            yield from self._grow("response.output_text.delta", text)
        for call in delta.get("tool_calls", ()):
            yield from self._push_call(call)

    def end(self, *, whole: bool) -> _Events:
        """Close what is open; an answer of nothing is an empty message."""
        if not self._output:
            yield from self._turn_to("message")
        texts = [item["content"][0] for item in self._output if item["type"] == "message"]
        if texts and self._logprobs is not None:
            texts[-1]["logprobs"] = self._logprobs  # known at the end only: where a call came behind it, it was closed
        yield from self._close("completed" if whole else "incomplete")

    def _push_call(self, call: JsonObject) -> _Events:
        if self._open is None or call["index"] != self._call:
            yield from self._close("completed")
            self._call = call["index"]
            item = {"id": _new_id("fc"), "type": "function_call", "status": "in_progress", "arguments": ""}
            yield from self._add(item | {"call_id": call["id"], "name": call["function"]["name"]})
        if (text := call["function"].get("arguments")) and self._open is not None:
            self._open["arguments"] += text
            yield self._of_item("response.function_call_arguments.delta", delta=text)

    def _turn_to(self, kind: str) -> _Events:
        """Let the open item be of this kind: thoughts or text."""
        if self._open is not None and self._open["type"] == kind:
            return
        yield from self._close("completed")
        if kind == "reasoning":
            part: JsonObject = {"type": "reasoning_text", "text": ""}
            item: JsonObject = {"id": _new_id("rs"), "type": kind, "summary": [], "status": "in_progress"}
        else:
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            item = {"id": _new_id("msg"), "type": kind, "role": "assistant", "status": "in_progress"}
        yield from self._add({**item, "content": []})
        self._item["content"].append(part)
        yield self._of_part("response.content_part.added", part={**part})

    def _grow(self, kind: str, text: str) -> _Events:
        self._item["content"][0]["text"] += text
        more: JsonObject = {"logprobs": []} if kind == "response.output_text.delta" else {}
        yield self._of_part(kind, delta=text, **more)

    def _add(self, item: JsonObject) -> _Events:
        self._output.append(item)
        self._open = item
        yield {"type": "response.output_item.added", "output_index": len(self._output) - 1, "item": item}

    def _close(self, status: str) -> _Events:
        if self._open is None:
            return
        item = self._item
        if item["type"] == "function_call":
            done, whole = "response.function_call_arguments.done", item["arguments"]
            yield self._of_item(done, arguments=whole, name=item["name"])
        else:
            [part] = item["content"]
            if item["type"] == "message":
                yield self._of_part("response.output_text.done", text=part["text"], logprobs=part["logprobs"])
            else:
                yield self._of_part("response.reasoning_text.done", text=part["text"])
            yield self._of_part("response.content_part.done", part=part)
        # Calls come whole, or not at all.
        item["status"] = "completed" if item["type"] == "function_call" else status
        self._open = self._call = None
        yield {"type": "response.output_item.done", "output_index": len(self._output) - 1, "item": item}

    @property
    def _item(self) -> JsonObject:
        return self._output[-1]

    def _of_item(self, kind: str, **more: Any) -> JsonObject:
        return {"type": kind, "item_id": self._item["id"], "output_index": len(self._output) - 1, **more}

    def _of_part(self, kind: str, **more: Any) -> JsonObject:
        return self._of_item(kind, content_index=0, **more)


def new_response_id() -> str:
    return _new_id("resp")


def _new_id(noun: str) -> str:
    return f"{noun}_{uuid.uuid4().hex}"


def _begun(body: ResponseIn, reply: Reply) -> JsonObject:
    """The response before anything of it is known: what it was asked for, with OpenAI's defaults."""
    text = body.text.model_dump(exclude_none=True) if body.text else {}
    return {
        "id": reply.id,
        "object": "response",
        "created_at": reply.created,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "model": reply.resolution.label,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
        "service_tier": "default",
        "store": bool(body.store),
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": {"format": {"type": "text"}, **text},
        "tool_choice": body.tool_choice or "auto",
        "tools": body.tools or [],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": "disabled",
        "background": False,
        "user": body.user,
        "usage": None,
    }


def _usage(chat: JsonObject) -> JsonObject:
    read, written = chat.get("prompt_tokens_details") or {}, chat.get("completion_tokens_details") or {}
    return {
        "input_tokens": chat["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": read.get("cached_tokens", 0), "cache_write_tokens": 0},
        "output_tokens": chat["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": written.get("reasoning_tokens", 0)},
        "total_tokens": chat["total_tokens"],
    }


def _logprob(chat: JsonObject) -> JsonObject:
    return {
        **chat,
        "bytes": list(chat["bytes"] or ()),
        "top_logprobs": [{**each, "bytes": list(each["bytes"] or ())} for each in chat["top_logprobs"]],
    }
