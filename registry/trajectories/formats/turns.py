"""What the readers of foreign formats share: messages of the format `chat`, put together turn by turn. Pure.

It knows how calls and their results belong together where a format has no ids, how tools and arguments are spelled
elsewhere, and which foreign columns are fields of the envelope. It refuses little: `chat.read` checks what comes out.
"""

import json
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
        """An assistant's turn. Calls without an id, or with that of another open call, get one of their own."""
        message: JsonObject = {"role": "assistant", "content": content}
        if reasoning:
            message["reasoning_content"] = reasoning
        if calls:
            message["tool_calls"] = [self._call(call) for call in calls]
        if weight is not None:
            message["weight"] = weight
        self.messages.append(message)

    def result(self, content: object, *, call_id: object = None, name: object = None) -> None:
        """What a call returned; without an id, the first open call of that name, or else the first open one."""
        if not is_name(call_id):
            named = self._open_by_name.get(name) if isinstance(name, str) else None
            call_id = next(iter(named or self.open_names), None)
        if isinstance(call_id, str) and (called := self.open_names.pop(call_id, None)) is not None:
            del self._open_by_name[called][call_id]
        self.messages.append({"role": "tool", "tool_call_id": call_id, "content": content})

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
    for other in ("input_schema", "inputSchema", "parametersJsonSchema"):
        if other in function:
            function.setdefault("parameters", function.pop(other))
    if isinstance(parameters := function.get("parameters"), str):
        with suppress(InvalidJson):  # refused as what it is
            function["parameters"] = parse_json(parameters) if parameters.strip() else None
    return {"type": "function", "function": function}


def parsed_text(value: object) -> Any:
    """The value of a JSON text; what is no JSON text stays as it is."""
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
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
