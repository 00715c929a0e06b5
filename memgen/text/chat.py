"""Between chat messages and tokens: prompts and supervised answers.

Uses the model's own chat template. Where that template knows no tools, they are written into the system message as
patterns of their calls (`memgen.text.tool_calls`), and calls as
`<tool_call>{"name": ..., "arguments": ...}</tool_call>`, the form of Hermes, Qwen and SmolLM2.
"""

from collections.abc import Sequence

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from memgen.errors import ChatTemplateError
from memgen.text.answers import ChatMessage, call_text, message_calls, message_text
from memgen.text.tool_calls import tool_pattern


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


def tokenize(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Token ids of rendered chat text, whose special tokens are already in it."""
    return tuple(int(i) for i in tokenizer(text, add_special_tokens=False).input_ids)
