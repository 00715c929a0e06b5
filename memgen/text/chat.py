"""Between chat messages and tokens: prompts, supervised answers, tool calls.

Uses the model's own chat template. Where that template knows no tools, they are written into the system message as
patterns of their calls (`memgen.text.tool_calls`), and calls as
`<tool_call>{"name": ..., "arguments": ...}</tool_call>`, the form of Hermes, Qwen and SmolLM2.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from memgen.errors import ChatTemplateError
from memgen.text.tool_calls import tool_pattern

ChatMessage = dict[str, Any]
_TOOL_CALL = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Answer:
    """An assistant turn read back from generated text."""

    content: str | None
    tool_calls: tuple[dict[str, Any], ...] = ()
    """`{"name": str, "arguments": dict}` each."""


def render_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[ChatMessage], tools: Sequence[ChatMessage] | None
) -> str:
    """The text in front of the next assistant turn."""
    return _render(tokenizer, messages, tools, generation_prompt=True)


def render_answer(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[ChatMessage], tools: Sequence[ChatMessage] | None
) -> tuple[str, str]:
    """(prompt, answer) texts of the last message, an assistant turn; the answer ends with its end-of-turn token.

    Raises:
        ChatTemplateError: the template does not render a conversation as the prompt followed by the answer.
    """
    prompt = render_prompt(tokenizer, messages[:-1], tools)
    whole = _render(tokenizer, messages, tools, generation_prompt=False)
    if not whole.startswith(prompt):
        raise ChatTemplateError(
            "the chat template renders the answered conversation differently from its prompt, so the answer can't be "
            f"separated; prompt ends {prompt[-60:]!r}"
        )
    answer = whole[len(prompt) :]
    end = str(tokenizer.eos_token)
    if end in answer:
        answer = answer[: answer.rindex(end) + len(end)]
    return prompt, answer


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


def _load_call(text: str) -> dict[str, Any] | None:
    try:
        call = json.loads(text)
    except ValueError:
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    arguments = call.get("arguments", {})
    return {"name": call["name"], "arguments": arguments} if isinstance(arguments, dict) else None


def _render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[ChatMessage],
    tools: Sequence[ChatMessage] | None,
    *,
    generation_prompt: bool,
) -> str:
    if "tools" in str(tokenizer.chat_template):
        conversation = [_with_parsed_arguments(message) for message in messages]
    else:
        conversation, tools = _spell_tools(messages, tools), None
    try:
        return str(
            tokenizer.apply_chat_template(
                conversation,
                tools=list(tools) if tools else None,
                add_generation_prompt=generation_prompt,
                tokenize=False,
            )
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise ChatTemplateError(f"the model's chat template refused the conversation: {error}") from error


def _with_parsed_arguments(message: ChatMessage) -> ChatMessage:
    """Templates with tools expect arguments as objects; OpenAI sends them as JSON text."""
    if not message.get("tool_calls"):
        return {**message, "content": message_text(message)}
    calls = [{"type": "function", "function": call} for call in message_calls(message)]
    return {**message, "content": message_text(message), "tool_calls": calls}


def _spell_tools(messages: Sequence[ChatMessage], tools: Sequence[ChatMessage] | None) -> list[ChatMessage]:
    """Plain role/content messages that carry tools, calls and results as text."""
    spelled = [_spell(message) for message in messages]
    if not tools:
        return spelled
    listing = "\n".join(tool_pattern(tool["function"]) for tool in tools)
    text = f"You can call these functions:\n{listing}"
    if spelled and spelled[0]["role"] == "system":
        return [{"role": "system", "content": f"{spelled[0]['content']}\n\n{text}"}, *spelled[1:]]
    return [{"role": "system", "content": text}, *spelled]


def _spell(message: ChatMessage) -> ChatMessage:
    text = message_text(message)
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>{text}</tool_response>"}
    calls = "\n".join(call_text(call["name"], call["arguments"]) for call in message_calls(message))
    role = "system" if message["role"] == "developer" else message["role"]
    return {"role": role, "content": "\n".join(part for part in (text, calls) if part)}


def message_text(message: ChatMessage) -> str:
    """Text of a message whose content is a string, a list of text parts, or null."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def tokenize(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Token ids of rendered chat text, whose special tokens are already in it."""
    return tuple(int(i) for i in tokenizer(text, add_special_tokens=False).input_ids)
