"""Trajectories for tests: good ones, every kind of broken line, and a tokenizer small enough to build at once."""

import copy
import json
from typing import Any

from registry.errors import InvalidTrajectory
from registry.trajectories.draft import Draft, Sent
from registry.trajectories.files import SizeLimits, TrajectoryFile
from registry.trajectories.files import read_line as read_one
from registry.trajectories.formats import chat as chat_format
from registry.trajectories.formats.formats import FORMATS, EachAlone, TrajectoryFormat
from registry.trajectories.jsonl import JsonLine

LOOKUP = {
    "type": "function",
    "function": {
        "name": "lookup",
        "description": "Find an order",
        "parameters": {"type": "object", "properties": {"order": {"type": "string"}}},
    },
}


def chat(question: str = "Where is my order?", answer: str = "On its way.", **envelope: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, **envelope}


def tool_chat(**envelope: Any) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "system", "content": "Help."},
            {"role": "user", "content": [{"type": "text", "text": "Where is order 7?"}]},
            {"role": "assistant", "content": None, "tool_calls": [call("c1"), call("c2", order="8")]},
            {"role": "tool", "tool_call_id": "c2", "content": "lost"},
            {"role": "tool", "tool_call_id": "c1", "content": "shipped"},
            {"role": "assistant", "content": "Shipped.", "weight": 1},
        ],
        "tools": [LOOKUP],
        **envelope,
    }


def call(call_id: str, name: str = "lookup", **arguments: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def changed(item: dict[str, Any], *path: Any, to: Any) -> dict[str, Any]:
    """A copy with the value at `path` replaced; `...` removes it."""
    copied = copy.deepcopy(item)
    *parents, last = path
    target: Any = copied
    for key in parents:
        target = target[key]
    if to is ...:
        del target[last]
    else:
        target[last] = to
    return copied


def line(item: object) -> bytes:
    return json.dumps(item).encode()


def _tools(**function: Any) -> dict[str, Any]:
    return changed(tool_chat(), "tools", 0, "function", to={**LOOKUP["function"], **function})


_CALL = ("messages", 2, "tool_calls", 0)
_GOOD = json.dumps(chat())
DEEP = "[" * 101 + "]" * 101

BROKEN: list[tuple[str, bytes, str]] = [
    # what is not JSON, or not JSON that can be stored
    ("not utf-8", b'{"messages": "\xff"}', "invalid_utf8"),
    ("utf-16", _GOOD.encode("utf-16"), "invalid_utf8"),
    ("cut short", _GOOD[:-5].encode(), "invalid_json"),
    ("two objects", (_GOOD + _GOOD).encode(), "invalid_json"),
    ("single quotes", b"{'messages': []}", "invalid_json"),
    ("control character", b'{"messages": "a\x01b"}', "invalid_json"),
    ("csv", b"question,answer", "invalid_json"),
    ("integer of 5,000 digits", f'{{"reward": {"1" * 5000}}}'.encode(), "invalid_json"),
    ("key twice", b'{"messages": [], "messages": []}', "duplicate_key"),
    ("NaN", b'{"reward": NaN}', "not_finite"),
    ("-Infinity", b'{"metadata": {"a": -Infinity}}', "not_finite"),
    ("number beyond double", _GOOD.replace("{", '{"metadata": {"a": 1e999}, ', 1).encode(), "not_finite"),
    ("NUL", line(chat(answer="a\0b")), "nul_character"),
    ("NUL in a key", line(chat(metadata={"a\0": 1})), "nul_character"),
    ("lone surrogate", line(chat(answer="\ud83d")), "lone_surrogate"),
    ("lone surrogate in a key", line(chat(metadata={"x": {"\udc00": 1}})), "lone_surrogate"),
    ("nested deep", _GOOD.replace("{", f'{{"metadata": {{"a": {DEEP}}}, ', 1).encode(), "too_deep"),
    ("nested absurdly deep", b"[" * 100_000, "too_deep"),
    # the envelope
    ("a list", b"[1, 2]", "not_an_object"),
    ("a string", b'"hello"', "not_an_object"),
    ("null", b"null", "not_an_object"),
    ("unknown field", line(chat(label="good")), "unknown_field"),
    ("unknown field with a surrogate", line({**chat(), "\ud800": 1}), "unknown_field"),
    ("id is a number", line(chat(trajectory_id=7)), "trajectory_id_invalid"),
    ("id too long", line(chat(trajectory_id="x" * 257)), "trajectory_id_invalid"),
    ("session id empty", line(chat(session_id="")), "session_id_invalid"),
    ("reward is text", line(chat(reward="high")), "reward_invalid"),
    ("reward is a truth value", line(chat(reward=True)), "reward_invalid"),
    ("reward beyond double", line(chat(reward=10**400)), "reward_invalid"),
    ("reward source", line(chat(reward=1, reward_source="gut feeling")), "reward_source_invalid"),
    ("success is a number", line(chat(success=1)), "success_invalid"),
    ("adapter version", line(chat(adapter_version={"name": "a"})), "adapter_version_invalid"),
    ("metadata is a list", line(chat(metadata=[1])), "metadata_invalid"),
    ("task is a number", line(chat(task=5)), "task_invalid"),
    # messages
    ("no messages", b"{}", "messages_missing"),
    ("messages null", b'{"messages": null}', "messages_missing"),
    ("messages an object", b'{"messages": {"role": "user"}}', "messages_not_list"),
    ("messages empty", b'{"messages": []}', "messages_empty"),
    ("message is text", line({"messages": ["hello"]}), "message_not_object"),
    ("no role", line(changed(chat(), "messages", 0, "role", to=...)), "role_unknown"),
    ("role unknown", line(changed(chat(), "messages", 0, "role", to="human")), "role_unknown"),
    ("role is a list", line(changed(chat(), "messages", 0, "role", to=["user"])), "role_unknown"),
    ("no content", line(changed(chat(), "messages", 0, "content", to=...)), "content_missing"),
    ("tool without content", line(changed(tool_chat(), "messages", 3, "content", to=None)), "content_missing"),
    ("content is a number", line(changed(chat(), "messages", 0, "content", to=5)), "content_type"),
    ("image", line(changed(chat(), "messages", 0, "content", to=[{"type": "image_url"}])), "content_part"),
    ("part without text", line(changed(chat(), "messages", 0, "content", to=[{"type": "text"}])), "content_part"),
    ("assistant null", line(changed(chat(), "messages", 1, "content", to=None)), "assistant_empty"),
    ("assistant empty", line(changed(chat(), "messages", 1, "content", to="")), "assistant_empty"),
    ("assistant with no parts", line(changed(chat(), "messages", 1, "content", to=[])), "assistant_empty"),
    ("no assistant", line({"messages": chat()["messages"][:1]}), "assistant_missing"),
    ("assistant first", line({"messages": chat()["messages"][1:]}), "assistant_first"),
    ("all weights 0", line(changed(chat(), "messages", 1, "weight", to=0)), "nothing_to_learn"),
    ("weight 0.5", line(changed(chat(), "messages", 1, "weight", to=0.5)), "weight_invalid"),
    ("weight true", line(changed(chat(), "messages", 1, "weight", to=True)), "weight_invalid"),
    ("weight of a user", line(changed(chat(), "messages", 0, "weight", to=1)), "weight_misplaced"),
    # calls and their results
    ("call by a user", line(changed(chat(), "messages", 0, "tool_calls", to=[call("c")])), "tool_calls_misplaced"),
    ("calls an object", line(changed(tool_chat(), "messages", 2, "tool_calls", to=call("c"))), "tool_calls_malformed"),
    ("call is text", line(changed(tool_chat(), *_CALL, to="lookup()")), "tool_calls_malformed"),
    ("call of another type", line(changed(tool_chat(), *_CALL, "type", to="custom")), "tool_calls_malformed"),
    ("call without id", line(changed(tool_chat(), *_CALL, "id", to=...)), "tool_call_no_id"),
    ("call without function", line(changed(tool_chat(), *_CALL, "function", to=...)), "tool_call_no_name"),
    ("call without name", line(changed(tool_chat(), *_CALL, "function", "name", to="")), "tool_call_no_name"),
    ("no arguments", line(changed(tool_chat(), *_CALL, "function", "arguments", to=...)), "tool_call_arguments"),
    ("arguments an object", line(changed(tool_chat(), *_CALL, "function", "arguments", to={})), "tool_call_arguments"),
    ("arguments a list", line(changed(tool_chat(), *_CALL, "function", "arguments", to="[1]")), "tool_call_arguments"),
    ("arguments cut", line(changed(tool_chat(), *_CALL, "function", "arguments", to='{"a"')), "tool_call_arguments"),
    (
        "arguments NaN",
        line(changed(tool_chat(), *_CALL, "function", "arguments", to='{"a":1e999}')),
        "tool_call_arguments",
    ),
    (
        "arguments deep",
        line(changed(tool_chat(), *_CALL, "function", "arguments", to=f'{{"a":{DEEP}}}')),
        "tool_call_arguments",
    ),
    ("call id twice", line(changed(tool_chat(), *_CALL, "id", to="c2")), "tool_call_duplicate_id"),
    (
        "undeclared function",
        line(changed(tool_chat(), *_CALL, "function", "name", to="search")),
        "tool_call_undeclared",
    ),
    ("result without id", line(changed(tool_chat(), "messages", 3, "tool_call_id", to=...)), "tool_call_id_missing"),
    ("result of no call", line(changed(tool_chat(), "messages", 3, "tool_call_id", to="c9")), "tool_call_unmatched"),
    ("result twice", line(changed(tool_chat(), "messages", 4, "tool_call_id", to="c2")), "tool_call_unmatched"),
    # tools
    ("tools an object", line(changed(tool_chat(), "tools", to=LOOKUP)), "tools_malformed"),
    ("tool is text", line(changed(tool_chat(), "tools", 0, to="lookup")), "tools_malformed"),
    ("bare function", line(changed(tool_chat(), "tools", 0, to=LOOKUP["function"])), "tools_malformed"),
    ("tool without name", line(_tools(name=None)), "tool_name_missing"),
    ("tool twice", line(changed(tool_chat(), "tools", to=[LOOKUP, LOOKUP])), "tool_duplicate_name"),
    ("parameters a list", line(_tools(parameters=["order"])), "tool_parameters"),
]
"""(name, JSONL line, code of its refusal)"""

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} {{ message['content'] }} <|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)


def tiny_tokenizer() -> Any:
    """One token a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(special)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    build: Any = PreTrainedTokenizerFast  # untyped in transformers
    wrapped = build(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<|im_end|>")
    wrapped.chat_template = CHATML
    return wrapped


LIMITS = SizeLimits(10**6, 10**7)


def read_line(number: int, data: bytes | None) -> Sent:
    """What the format `chat` makes of one line."""
    chat_lines = FORMATS["chat"]
    [sent] = read_one(JsonLine(number, data), chat_lines, chat_lines.open(), LIMITS)
    return sent


def read_file(data: bytes, format_name: str, *, size: int = 65_536, limits: SizeLimits = LIMITS) -> list[Sent]:
    """What a file holds that comes in chunks of `size` bytes."""
    file = TrajectoryFile(format_name, limits)
    found = [sent for start in range(0, len(data), size) for sent in file.feed(data[start : start + size])]
    return [*found, *file.finish()]


def drafts(found: list[Sent]) -> list[Draft]:
    """The drafts; a refusal among them is raised."""
    for _, sent in found:
        if not isinstance(sent, Draft):
            raise sent
    return [sent for _, sent in found if isinstance(sent, Draft)]


def _read_pair(item: object) -> Draft:
    if not isinstance(item, dict) or set(item) != {"question", "answer"}:
        raise InvalidTrajectory("invalid_pair", "expected `question` and `answer`")
    return chat_format.read(chat(item["question"], item["answer"]))


PAIRS = TrajectoryFormat(lambda: EachAlone(_read_pair), {"type": "object", "required": ["question", "answer"]})
"""A second format for tests that add one to `FORMATS`: `{"question": "2+2?", "answer": "4"}`."""
