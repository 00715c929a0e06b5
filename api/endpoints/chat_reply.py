"""Replies in OpenAI's shapes: a completion, and the chunks of a stream. Pure; knows no HTTP and no waiting."""

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from api.http.json_object import JsonObject
from api.inference.tickets import Finished
from memgen.text.answers import parse_answer
from registry.serving.resolution import Resolution


@dataclass(frozen=True)
class Reply:
    """What a completion, or all chunks of one stream, have in common."""

    resolution: Resolution
    tools: bool
    """Whether the answer may be calls of tools."""
    include_usage: bool = False
    """In a stream, every chunk then has `usage`, which is null in all but the last."""
    id: str = field(default_factory=lambda: new_completion_id())
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, answers: Sequence[Finished]) -> JsonObject:
        choices = []
        for answer in answers:
            message, finish_reason = self._message(answer)
            choices.append(
                {
                    "index": answer.choice,
                    "message": {"role": "assistant", **message},
                    "finish_reason": finish_reason,
                    "logprobs": _logprobs(answer),
                }
            )
        head = self._head("chat.completion")
        return {**head, "choices": choices, "usage": _usage(answers), "memgen": _stamp(self.resolution, answers)}

    def opening(self, choice: int) -> JsonObject:
        return self._chunk(choice, {"role": "assistant", "content": None if self.tools else ""})

    def text(self, choice: int, text: str) -> JsonObject:
        return self._chunk(choice, {"content": text})

    def ending(self, answer: Finished) -> list[JsonObject]:
        """The last chunks of a choice. Whether an answer calls tools is known only now, so with tools all of it is."""
        message, finish_reason = self._message(answer)
        last = self._chunk(answer.choice, {}, finish_reason=finish_reason, logprobs=_logprobs(answer))
        if not self.tools:
            return [last]
        delta = {name: value for name, value in message.items() if value}
        if "tool_calls" in delta:
            delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(delta["tool_calls"])]
        return [self._chunk(answer.choice, delta), last] if delta else [last]

    def stamped(self, chunk: JsonObject, answers: Sequence[Finished]) -> JsonObject:
        """The chunk with `memgen`, as a completion has it."""
        return {**chunk, "memgen": _stamp(self.resolution, answers)}

    def usage(self, answers: Sequence[Finished]) -> JsonObject:
        """The chunk after the last choice's."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": _usage(answers)}

    def _head(self, kind: str) -> JsonObject:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.resolution.label}

    def _chunk(
        self, choice: int, delta: JsonObject, *, finish_reason: str | None = None, logprobs: JsonObject | None = None
    ) -> JsonObject:
        shown = {"index": choice, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs}
        usage = {"usage": None} if self.include_usage else {}
        return {**self._head("chat.completion.chunk"), "choices": [shown], **usage}

    def _message(self, answer: Finished) -> tuple[JsonObject, str]:
        """Content and tool calls, and why the answer ended."""
        generation = answer.generation
        parsed = parse_answer(generation.text) if self.tools else None
        if parsed is None or not parsed.tool_calls:
            return {"content": generation.text}, generation.finish_reason
        calls = [
            {
                "id": f"call_{uuid.uuid4().hex[:24]}",
                "type": "function",
                "function": {"name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)},
            }
            for call in parsed.tool_calls
        ]
        return {"content": parsed.content, "tool_calls": calls}, "tool_calls"


def new_completion_id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"


def _logprobs(answer: Finished) -> JsonObject | None:
    """One entry for each completion token, those of a stop string among them."""
    values = answer.generation.logprobs
    if values is None:
        return None
    content: list[JsonObject] = [
        {"token": token.text, "logprob": value, "bytes": token.raw, "top_logprobs": []}
        for token, value in zip(answer.tokens, values, strict=True)
    ]
    return {"content": content, "refusal": None}


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
