"""What a model said, read: reasoning, content and tool calls of generated text, and of an OpenAI message.

Calls are spelled `<tool_call>{"name": ..., "arguments": ...}</tool_call>`, the form of Hermes, Qwen and SmolLM2;
reasoning stands in front, as `<think>...</think>`. Whatever the text, reading it raises nothing and costs time and
memory linear in its length. Knows no template and no tokenizer.
"""

import json
from dataclasses import dataclass
from typing import Any

from memgen.text.calls import find_calls, read_arguments, whole_characters
from memgen.text.reasoning import joined_thoughts, split_reasoning

ChatMessage = dict[str, Any]

_GAP = "\n\N{HORIZONTAL ELLIPSIS}\n"
"""Stands for a call between texts that would read as one without it: no JSON goes on over a line break in a text, nor
over an ellipsis outside."""


@dataclass(frozen=True)
class Answer:
    """An assistant turn read back from generated text."""

    content: str | None
    tool_calls: tuple[dict[str, Any], ...] = ()
    """`{"name": str, "arguments": dict}` each; writable as JSON in UTF-8, with finite numbers."""
    reasoning: str | None = None
    """What was thought before the answer; no part of the conversation."""


def parse_answer(text: str, *, calls: bool = True, opened: bool = False, cut: bool = False) -> Answer:
    """Split generated text into reasoning, content and tool calls. A malformed call stays in the content.

    An answer that is written out again, its content in front of its calls, is read as the same answer.

    Args:
        calls: whether tools were offered; if not, the content is all that is not reasoning.
        opened: the prompt ends inside of a `<think>`, which the text goes on with.
        cut: the text ends where its token limit was. Then the half of a call at its end is dropped, and where the
            prompt opened a thought that did not end, all is reasoning.
    """
    text = whole_characters(text)
    thoughts, content = split_reasoning(text, opened=opened, cut=cut)
    if not calls:
        return Answer(content or None, reasoning=joined_thoughts(thoughts))
    content, found = _split_calls(content, cut=cut)
    more, content = split_reasoning(content, cut=cut)
    return Answer(content or None, tuple(found), joined_thoughts(thoughts + more))


def answer_message(answer: Answer) -> ChatMessage:
    """The answer as an OpenAI assistant message without its reasoning; the n-th call's id is `call_<n>`."""
    message: ChatMessage = {"role": "assistant", "content": answer.content or ""}
    if answer.tool_calls:
        message["tool_calls"] = [
            {
                "id": f"call_{number}",
                "type": "function",
                "function": {**call, "arguments": json.dumps(call["arguments"], ensure_ascii=False)},
            }
            for number, call in enumerate(answer.tool_calls)
        ]
    return message


def message_calls(message: ChatMessage) -> list[dict[str, Any]]:
    """Tool calls of an OpenAI message as `{"name", "arguments"}` with parsed arguments.

    Arguments that are no object, such as half a JSON text, are shown as `{"arguments": ...}`: templates expect objects.
    """
    calls = []
    for call in message.get("tool_calls") or []:
        given = call["function"].get("arguments")
        arguments = read_arguments(given)
        calls.append(
            {"name": call["function"]["name"], "arguments": {"arguments": given} if arguments is None else arguments}
        )
    return calls


def message_text(message: ChatMessage) -> str:
    """Text of a message whose content is a string, a list of parts with text or a refusal, or null.

    What is no text where one belongs is none: fields that nobody checked may hold anything.
    """
    content, refusal = message.get("content"), message.get("refusal")
    if isinstance(content, list):
        return "".join(map(_part_text, content))
    text = content or refusal
    return text if isinstance(text, str) else ""


def _part_text(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get(kind) if kind in ("text", "refusal") else None
    return text if isinstance(text, str) else ""


def _split_calls(text: str, *, cut: bool) -> tuple[str, list[dict[str, Any]]]:
    """The text without its calls, and the calls. With `cut`, without half a call at its end too."""
    calls, half = find_calls(text, cut=cut)
    starts = [0, *(end for _, end, _ in calls)]
    ends = [*(start for start, _, _ in calls), half if cut else len(text)]
    pieces = [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]
    content = "\n".join(filter(None, pieces))
    if calls and find_calls(content, cut=False)[0]:
        content = _GAP.join(filter(None, pieces))  # else what stood around a call would read as another one
    return content, [call for _, _, call in calls]
