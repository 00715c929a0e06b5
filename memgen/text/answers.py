"""What a model said, read: content and tool calls of generated text, and of an OpenAI message.

Calls are spelled `<tool_call>{"name": ..., "arguments": ...}</tool_call>`, the form of Hermes, Qwen and SmolLM2. Knows
no template and no tokenizer.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

ChatMessage = dict[str, Any]
_TOOL_CALL = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Answer:
    """An assistant turn read back from generated text."""

    content: str | None
    tool_calls: tuple[dict[str, Any], ...] = ()
    """`{"name": str, "arguments": dict}` each."""


def parse_answer(text: str) -> Answer:
    """Split generated text into content and tool calls. A malformed call stays in the content."""
    calls: list[dict[str, Any]] = []

    def take(match: re.Match[str]) -> str:
        call = _load_call(match.group(1))
        if call is None:
            return match.group(0)
        calls.append(call)
        return ""

    content = _TOOL_CALL.sub(take, text).strip()
    return Answer(content=content or None, tool_calls=tuple(calls))


def answer_message(answer: Answer) -> ChatMessage:
    """The answer as an OpenAI assistant message; the n-th call's id is `call_<n>`."""
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


def call_text(name: str, arguments: dict[str, Any]) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}</tool_call>"


def message_calls(message: ChatMessage) -> list[dict[str, Any]]:
    """Tool calls of an OpenAI message as `{"name", "arguments"}` with parsed arguments."""
    calls = []
    for call in message.get("tool_calls") or []:
        arguments = call["function"].get("arguments") or {}
        calls.append(
            {
                "name": call["function"]["name"],
                "arguments": json.loads(arguments) if isinstance(arguments, str) else arguments,
            }
        )
    return calls


def message_text(message: ChatMessage) -> str:
    """Text of a message whose content is a string, a list of text parts, or null."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def _load_call(text: str) -> dict[str, Any] | None:
    try:
        call = json.loads(text)
    except ValueError:
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    arguments = call.get("arguments", {})
    return {"name": call["name"], "arguments": arguments} if isinstance(arguments, dict) else None
