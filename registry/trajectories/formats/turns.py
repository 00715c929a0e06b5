"""What the readers of foreign formats share: messages of the format `chat`, put together turn by turn. Pure.

It knows how calls and their results belong together where a format has no ids, how tools and arguments are spelled
elsewhere, and which foreign columns are fields of the envelope. It refuses little: `chat.read` checks what comes out.
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from registry.errors import InvalidJson, InvalidTrajectory
from registry.json_text import parse_json, show
from registry.models import JsonObject
from registry.trajectories.formats.envelope import ENVELOPE
from registry.trajectories.tools import is_name

OWN = "memgen"
"""The object in which any format may hold fields of the envelope, such as the reward."""
_LONGEST_LITERAL = 100_000
"""Characters of a Python literal that is read: its syntax tree takes some hundred times its text."""
_LITERAL = re.compile(
    r"""(?:[\s\[\]{},:]|-?[0-9][0-9.eE+-]*|True|False|None|'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+")*+""", re.DOTALL
)
"""What objects, lists, texts, numbers and constants are written with: nothing that computes, nothing slow to parse."""


@dataclass(frozen=True)
class Call:
    name: object
    arguments: object
    """An object, or its JSON text; None and an empty text for a function without parameters."""
    id: object = None


@dataclass
class Turns:
    """The messages so far, in order."""

    messages: list[JsonObject] = field(default_factory=list)
    open_names: dict[str, str] = field(default_factory=dict)
    """Names of the functions that were called and not yet answered, by the call's id."""
    calls_made: int = 0
    _called: bool = False
    """Whether the last answer has calls."""
    _open_by_name: dict[str, dict[str, None]] = field(default_factory=dict)
    """Ids of the open calls of each function, in order."""

    def __post_init__(self) -> None:
        for call_id, name in self.open_names.items():
            self._open_by_name.setdefault(name, {})[call_id] = None

    def say(self, role: str, content: object) -> None:
        """A message that is no assistant's."""
        self.messages.append({"role": role, "content": content})

    def answer(
        self, content: object, calls: Sequence[Call] = (), *, weight: int | None = None, reasoning: object = None
    ) -> None:
        """An assistant's turn. Calls without an id, or with that of another open call, get one of their own.

        A turn with nothing in front of it, such as a greeting, is context unless its weight says otherwise.
        """
        message: JsonObject = {"role": "assistant", "content": content}
        if weight is None and not self.messages:
            weight = 0
        if reasoning:
            message["reasoning_content"] = reasoning
        if calls:
            message["tool_calls"] = [self._call(call) for call in calls]
        if weight is not None:
            message["weight"] = weight
        self._called = bool(calls)
        self.messages.append(message)

    def call(self, calls: Sequence[Call], *, weight: int | None = None) -> None:
        """Calls that are written down as a message of their own: they are of the answer directly in front of them."""
        last = self.messages[-1] if self.messages else {}
        if calls and last.get("role") == "assistant" and last.get("weight") == weight:
            last.setdefault("tool_calls", []).extend(map(self._call, calls))
            self._called = True
        else:
            self.answer(None, calls, weight=weight)

    def result(self, content: object, *, call_id: object = None, name: object = None) -> None:
        """What a call returned; without an id, the first open call of that name, or else the first open one."""
        if not is_name(call_id):
            named = self._open_by_name.get(name) if isinstance(name, str) else None
            call_id = next(iter(named or self.open_names), None)
        if isinstance(call_id, str) and (called := self.open_names.pop(call_id, None)) is not None:
            del self._open_by_name[called][call_id]
        self.messages.append({"role": "tool", "tool_call_id": call_id, "content": content})

    def observe(self, content: object, *, call_id: object = None, name: object = None) -> None:
        """What a call returned, or what followed an answer that calls in its own text: the user says that."""
        if self._called or is_name(call_id):
            self.result(content, call_id=call_id, name=name)
        else:
            self.say("user", content)

    @property
    def open_calls(self) -> int:
        """Number of calls that wait for their results."""
        return len(self.open_names)

    def _call(self, call: Call) -> JsonObject:
        self.calls_made += 1
        call_id = call.id if is_name(call.id) and call.id not in self.open_names else f"call_{self.calls_made}"
        if isinstance(call.name, str):
            self.open_names[call_id] = call.name
            self._open_by_name.setdefault(call.name, {})[call_id] = None
        function = {"name": call.name, "arguments": arguments_text(call.arguments)}
        return {"id": call_id, "type": "function", "function": function}


def arguments_text(arguments: object) -> object:
    """JSON text of a call's arguments. What is no object is left to be refused."""
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        return "{}"
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def read_calls(sent: object, place: str) -> list[Call]:
    """Calls as messages hold them: one or a list, each as OpenAI's or as its bare function, or as the text of that.

    Raises:
        InvalidTrajectory: `tool_calls_malformed`: it is something else.
    """
    sent = parsed_text(sent)
    calls = []
    for number, call in enumerate([] if sent is None else sent if isinstance(sent, list) else [sent]):
        call = parsed_text(call)
        if not isinstance(call, dict):
            raise InvalidTrajectory(
                "tool_calls_malformed", f"{place}.tool_calls[{number}]: got {show(call)}; expected a call's object"
            )
        function = call["function"] if isinstance(call.get("function"), dict) else call
        arguments = function.get("arguments", function.get("parameters"))
        calls.append(Call(function.get("name"), without_nulls(arguments), call.get("id")))
    return calls


def parse_literal(text: str) -> object:
    """The value of a JSON text, or of Python's spelling of one: `{'city': 'Lima', 'now': True}`.

    Raises:
        InvalidJson: what is wrong with it as JSON.
    """
    try:
        return parse_json(text)
    except InvalidJson:
        # Two of the most used public data sets were written by `str`.
        if len(text) > _LONGEST_LITERAL or text.lstrip()[:1] not in ("{", "[") or not _LITERAL.fullmatch(text):
            raise
        with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError, InvalidJson):
            return parse_json(json.dumps(ast.literal_eval(text.strip())))
        raise


def read_tools(value: object) -> list[Any] | None:
    """Tools in OpenAI's form, from what is declared elsewhere: bare functions, a JSON text, other names of the schema.

    Raises:
        InvalidTrajectory: `tools_malformed`: a text that is no JSON.
    """
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            value = parse_json(value)
        except InvalidJson as error:
            raise InvalidTrajectory("tools_malformed", f"tools: {error}; expected JSON") from error
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return value or None  # type: ignore[return-value]  # refused as what it is by `check_tools`
    return [_read_tool(tool) for tool in value] or None


def _read_tool(tool: object) -> object:
    if isinstance(tool, str):
        try:
            tool = parse_json(tool)
        except InvalidJson as error:
            raise InvalidTrajectory("tools_malformed", f"tools: {error}; expected JSON") from error
    if not isinstance(tool, dict):
        return tool
    function = tool.get("function")
    if not isinstance(function, dict):
        if function is not None or "name" not in tool:
            return tool
        function = {key: value for key, value in tool.items() if key != "type"}
    function = dict(function)
    for other in ("input_schema", "inputSchema", "parametersJsonSchema", "parameters_json_schema"):
        if other in function:
            function.setdefault("parameters", function.pop(other))
    if isinstance(parameters := function.get("parameters"), str):
        with suppress(InvalidJson):  # refused as what it is
            function["parameters"] = parse_json(parameters) if parameters.strip() else None
    return {"type": "function", "function": function}


def parsed_text(value: object) -> Any:
    """The value of a JSON text, or of Python's spelling of one; what is neither stays as it is."""
    if not isinstance(value, str):
        return value
    try:
        return parse_literal(value)
    except InvalidJson:
        return value


def without_nulls(value: object) -> object:
    """The value without null members of objects: columnar files write a null for every absent one."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def foreign_envelope(columns: Mapping[str, Any]) -> JsonObject:
    """Envelope fields from a foreign object's other fields, to be checked by `chat.read`.

    A field that has the name of one of the envelope, and a value of its kind, is that field, except for `task`:
    elsewhere the word means other things. Members of an object `memgen` are fields of the envelope, `task` too. The
    rest, which says nothing to us, goes into the metadata; nulls are absent.

    Raises:
        InvalidTrajectory: `memgen_invalid`.
    """
    rest = {key: value for key, value in columns.items() if value is not None}
    own = rest.pop(OWN, {})
    if not isinstance(own, dict):
        raise InvalidTrajectory(
            "memgen_invalid", f"{OWN}: got {show(own)}; expected an object with `task`, `reward`, ..."
        )
    fields: JsonObject = {}
    for known in ENVELOPE:
        if known.name != "metadata" and known.name in rest:
            try:
                fields[known.name] = known.read(known.name, rest[known.name])
            except InvalidTrajectory:
                continue
            del rest[known.name]
    if isinstance(rest.get("metadata"), dict):
        rest |= {key: value for key, value in rest.pop("metadata").items() if value is not None}
    own = dict(own)
    if isinstance(own.get("metadata"), dict):
        rest |= own.pop("metadata")
    return {**fields, **own, "metadata": rest}
