"""Replies in OpenAI's shapes: a completion, and the chunks of a stream. Pure; knows no HTTP and no waiting.

What a model thought before it answered stands beside the content, as `reasoning_content`, where others have it too.
An answer that was cut off at its token limit ends for `length`: the whole calls before that are returned, half a call
is not, neither as a call nor as text.
"""

import hashlib
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from api.http.json_object import JsonObject
from api.inference.requests import Finished, Piece
from api.inference.token_texts import TokenText
from api.recording.note import RecordingNote
from memgen.text.answers import parse_answer
from memgen.text.calls import CallStream
from memgen.text.reasoning import ReasoningStream
from registry.serving.resolution import Resolution


class Telling:
    """What of one answer was streamed so far: text as soon as it is certain that it is no call, calls when they are
    whole, each as its name and then its arguments."""

    def __init__(self, *, opened: bool, calls: bool, ids: str) -> None:
        """
        Args:
            calls: whether the answer may be calls.
            ids: what the ids of its calls are made of.
        """
        self._reasoning = ReasoningStream(opened=opened)
        self._calls = CallStream() if calls else None
        self._ids = ids
        self._sent = {"reasoning_content": 0, "content": 0}
        self._called = 0

    def push(self, text: str) -> Iterator[JsonObject]:
        """The deltas that more of the text makes certain."""
        reasoning, content = self._reasoning.push(text)
        content, calls = self._calls.push(content) if self._calls else (content, [])
        yield from self._tell({"reasoning_content": reasoning, "content": content})
        for call in calls:
            yield from self._tell_call(_tool_call(self._ids, self._called, call))

    def rest(self, message: JsonObject) -> Iterator[JsonObject]:
        """The deltas that the whole message adds to what was told."""
        yield from self._tell({name: (message.get(name) or "")[length:] for name, length in self._sent.items()})
        for call in message.get("tool_calls", ())[self._called :]:
            yield from self._tell_call(call)

    def _tell(self, delta: JsonObject) -> Iterator[JsonObject]:
        for name, text in delta.items():
            self._sent[name] += len(text)
        if delta_now := {name: text for name, text in delta.items() if text}:
            yield delta_now

    def _tell_call(self, call: JsonObject) -> Iterator[JsonObject]:
        index, function = self._called, call["function"]
        self._called += 1
        yield {"tool_calls": [{"index": index, **call, "function": {"name": function["name"], "arguments": ""}}]}
        yield {"tool_calls": [{"index": index, "function": {"arguments": function["arguments"]}}]}


@dataclass(frozen=True)
class Reply:
    """What a completion, or all chunks of one stream, have in common."""

    resolution: Resolution
    tools: bool
    """Whether the answer may be calls of tools."""
    include_usage: bool = False
    """In a stream, every chunk then has `usage`, which is null in all but the last."""
    id: str = field(default_factory=lambda: new_completion_id())
    recording: RecordingNote | None = None
    """What becomes of the answer's recording; told with the last of its choices."""
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, answers: Sequence[Finished]) -> JsonObject:
        choices = []
        for answer in answers:
            message, finish_reason = self.message(answer)
            choices.append(
                {
                    "index": answer.choice,
                    "message": message,
                    "finish_reason": finish_reason,
                    "logprobs": _logprobs(answer),
                }
            )
        head = self._head("chat.completion")
        return {**head, "choices": choices, "usage": _usage(answers), "memgen": self._stamp(answers)}

    def opening(self, choice: int) -> JsonObject:
        return self._chunk(choice, {"role": "assistant", "content": None if self.tools else ""})

    def telling(self, event: Piece | Finished) -> Telling:
        """Where the stream of the event's choice begins."""
        return Telling(opened=event.opened, calls=self.tools, ids=self._ids(event.choice))

    def delta(self, choice: int, delta: JsonObject) -> JsonObject:
        return self._chunk(choice, delta)

    def ending(self, answer: Finished, telling: Telling) -> list[JsonObject]:
        """The last chunks of a choice: what was not told yet, and why it ended."""
        message, finish_reason = self._message(answer)
        # With tools the content begins as null; an answer of nothing is an empty text, as in a completion.
        empty = {"content": ""} if self.tools and message["content"] == "" else {}
        last = self._chunk(answer.choice, empty, finish_reason=finish_reason, logprobs=_logprobs(answer))
        return [*(self._chunk(answer.choice, delta) for delta in telling.rest(message)), last]

    def stamped(self, chunk: JsonObject, answers: Sequence[Finished]) -> JsonObject:
        """The chunk with `memgen`, as a completion has it."""
        return {**chunk, "memgen": self._stamp(answers)}

    def usage(self, answers: Sequence[Finished]) -> JsonObject:
        """The chunk after the last choice's."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": _usage(answers)}

    def message(self, answer: Finished) -> tuple[JsonObject, str]:
        """The assistant message of one choice, and why it ended."""
        message, finish_reason = self._message(answer)
        return {"role": "assistant", **message}, finish_reason

    def _stamp(self, answers: Sequence[Finished]) -> JsonObject:
        recorded = self.recording.describe() if self.recording else None
        return {**_stamp(self.resolution, answers), "recorded": recorded}

    def _ids(self, choice: int) -> str:
        return f"{self.id}/{choice}"

    def _head(self, kind: str) -> JsonObject:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.resolution.label}

    def _chunk(
        self, choice: int, delta: JsonObject, *, finish_reason: str | None = None, logprobs: JsonObject | None = None
    ) -> JsonObject:
        shown = {"index": choice, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs}
        usage = {"usage": None} if self.include_usage else {}
        return {**self._head("chat.completion.chunk"), "choices": [shown], **usage}

    def _message(self, answer: Finished) -> tuple[JsonObject, str]:
        """Content, reasoning and tool calls, and why the answer ended."""
        generation = answer.generation
        cut = generation.finish_reason == "length"
        parsed = parse_answer(generation.text, calls=self.tools, opened=answer.opened, cut=cut)
        message: JsonObject = {"content": parsed.content if parsed.tool_calls else parsed.content or ""}
        if parsed.reasoning:
            message["reasoning_content"] = parsed.reasoning
        if not parsed.tool_calls:
            return message, generation.finish_reason
        ids = self._ids(answer.choice)
        message["tool_calls"] = [_tool_call(ids, number, call) for number, call in enumerate(parsed.tool_calls)]
        return message, generation.finish_reason if cut else "tool_calls"


def _tool_call(ids: str, number: int, call: Mapping[str, Any]) -> JsonObject:
    """The same id each time, so that a call that was streamed is the one in the whole reply."""
    unique = hashlib.sha256(f"{ids}/{number}".encode()).hexdigest()[:24]
    arguments = json.dumps(call["arguments"], ensure_ascii=False)
    return {"id": f"call_{unique}", "type": "function", "function": {"name": call["name"], "arguments": arguments}}


def new_completion_id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"


def _logprobs(answer: Finished) -> JsonObject | None:
    """One entry for each completion token, those of a stop string among them."""
    values = answer.generation.logprobs
    if values is None:
        return None
    shown = answer.generation.alternatives or ((),) * len(values)
    texts = answer.alternatives or ((),) * len(values)
    content = [
        {
            **_logprob(token, value),
            "top_logprobs": [_logprob(text, each.logprob) for text, each in zip(names, places, strict=True)],
        }
        for token, value, names, places in zip(answer.tokens, values, texts, shown, strict=True)
    ]
    return {"content": content, "refusal": None}


def _logprob(token: TokenText, value: float) -> JsonObject:
    return {"token": token.text, "logprob": value, "bytes": token.raw}


def _usage(answers: Sequence[Finished]) -> JsonObject:
    """The prompt was read once for all answers, and counts once."""
    prompt = answers[0].generation.prompt_tokens
    completion = sum(len(answer.generation.token_ids) for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _stamp(resolution: Resolution, answers: Sequence[Finished]) -> JsonObject:
    """Which version answered, which past trajectories its weaver was shown, where its memory was woven in."""
    return {
        "adapter": resolution.adapter.name if resolution.adapter else None,
        "version": resolution.version.number if resolution.version else None,
        "alias": resolution.alias,
        "route": resolution.route.number if resolution.route else None,
        "task": answers[0].task,
        "cue": list(answers[0].cue),
        "insertions": [
            {
                "choice": answer.choice,
                "position": insertion.position,
                "latents": insertion.latents,
                "reread": insertion.reread,
                "probability": round(insertion.probability, 4),
            }
            for answer in answers
            for insertion in answer.generation.insertions
        ],
        "seconds": round(max(answer.generation.timings.total for answer in answers), 3),
    }
