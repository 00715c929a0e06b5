"""A base profile told to people and programs: what the template writes itself, what we spell, what ends an answer."""

from typing import Any

from memgen.text.profile import BaseProfile

NATIVE, SPELLED = "native", "spelled"

EXAMPLE_TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "Its name"}},
                "required": ["city"],
            },
        },
    }
]
EXAMPLE_MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Will it rain in Bern?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_0",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city": "Bern"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_0", "content": "sunny"},
    {"role": "assistant", "content": "No."},
]
"""A conversation with a system message, a call, its result and an answer."""


def summarize(profile: BaseProfile) -> dict[str, Any]:
    """The profile as JSON; `in_words` says what each field means."""
    form, frame = profile.form, profile.frame
    tokenizer = profile.tokenizer
    return {
        "system": form.system or "user",
        "later_system": "system" if form.later_system else "user",
        "neighbours": "kept" if form.neighbours else "joined",
        "tools": NATIVE if form.tools else SPELLED,
        "calls": NATIVE if form.calls else SPELLED,
        "arguments": ("text" if form.arguments_as_text else "object") if form.calls else None,
        "writes_date": profile.writes_date,
        "thought": "written" if "</think>" in frame.before else "not_opened" if frame.dropped else None,
        "answer_end": frame.end,
        "stop_tokens": [
            {"id": number, "text": str(tokenizer.convert_ids_to_tokens(number))}
            for number in sorted(profile.stop_token_ids)
        ],
        "control_tokens": len(profile.control.spellings),
    }


def example(profile: BaseProfile) -> dict[str, Any]:
    """A small conversation with a tool as this base reads it: the prompt of its last answer, and both answers.

    Raises:
        ChatTemplateError: the template refuses the conversation.
    """
    return {
        "messages": EXAMPLE_MESSAGES,
        "tools": EXAMPLE_TOOLS,
        "prompt": profile.prompt_text(EXAMPLE_MESSAGES[:-1], EXAMPLE_TOOLS),
        "call": profile.answer_text(EXAMPLE_MESSAGES[2]),
        "answer": profile.answer_text(EXAMPLE_MESSAGES[-1]),
    }


def in_words(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, how) of each field of a summary."""
    stops = ", ".join(f"{token['text']} ({token['id']})" for token in summary["stop_tokens"])
    return [
        ("system message", _SYSTEM[summary["system"]]),
        ("later ones", _LATER_SYSTEM[summary["later_system"]]),
        ("messages of one role in a row", _NEIGHBOURS[summary["neighbours"]]),
        ("tools", _TOOLS[summary["tools"]]),
        ("calls and results", _CALLS[summary["calls"]]),
        ("arguments", _ARGUMENTS[summary["arguments"]]),
        ("thoughts", _THOUGHT[summary["thought"]]),
        ("date", _DATE[summary["writes_date"]]),
        ("an answer ends with", summary["answer_end"].strip() or "nothing of its own"),
        ("generation stops at", stops),
        ("control tokens", f"{summary['control_tokens']}; in a message or a tool each is plain text"),
    ]


_SYSTEM = {
    "system": "native: the template writes it",
    "developer": "native, under the role `developer`",
    "user": "spelled: it stands at the beginning of the first message of the user",
}
_LATER_SYSTEM = {"system": "native", "user": "spelled as messages of the user"}
_NEIGHBOURS = {
    "kept": "native: each is a turn",
    "joined": "joined to one, because the template wants turns to alternate",
}
_TOOLS = {
    NATIVE: "native: the template lists them",
    SPELLED: "spelled: a line with the expected call for each, in the system message",
}
_CALLS = {
    NATIVE: "native: the template writes them, and what it writes was read back",
    SPELLED: "spelled: <tool_call>{...}</tool_call> in the answer, <tool_response> of the user",
}
_ARGUMENTS = {
    "object": "given to the template as an object",
    "text": "given to the template as JSON text",
    None: "spelled",
}
_THOUGHT = {
    None: "the template writes none",
    "written": "the template writes one without words in front of an answer; it is a part of the prompt",
    "not_opened": "the template's prompt opens one; it is left out, so that answers are trained and given at once",
}
_DATE = {
    True: "the template writes today's; in training and judging it is a fixed one",
    False: "the template writes none",
}
