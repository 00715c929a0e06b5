"""Checks of one conversation in OpenAI's chat format. Pure: knows no row, no envelope, no tokenizer.

A conversation is refused at its first fault, with a stable code and the fault's place. Training can learn from an
accepted one: it has at least one assistant turn of non-zero weight, with something in front of it. It may end after
that turn with messages of other roles, which are kept and not learned from. Unknown fields of a message are kept, not
read.

What is learned from is checked strictly. Everything else is context: the messages of a chat, and in training the
assistant turns of weight 0 with the results of their calls. Context may look like any provider's history: answers
without content, calls of functions that are not offered, arguments that are no JSON, results in any order, and OpenAI's
older `function_call` with the role `function`.
"""

from typing import Any

from registry.errors import InvalidJson, InvalidTrajectory
from registry.json_text import canonical_json, parse_json, show
from registry.trajectories.tools import EXPECTED_NAME, check_tools, is_name

ROLES = ("system", "developer", "user", "assistant", "tool")
CONTEXT_ROLES = (*ROLES, "function")
_TEXT_PARTS = ("text", "refusal")
_THOUGHT_PARTS = ("thinking", "reasoning", "redacted_thinking")
"""Parts of other providers' answers that are no text of them."""


def check_conversation(messages: object, tools: object) -> None:
    """Refuse a conversation that can't be learned from.

    Raises:
        InvalidTrajectory: its code says what is wrong, its message where. That every text can be stored (no NUL, no
            lone surrogate, no NaN) is `canonical_json`'s to check.
    """
    checked = _check_messages(messages, tools, chat=False)
    if checked[0]["role"] == "assistant" and checked[0].get("weight") != 0:
        raise InvalidTrajectory(
            "assistant_first",
            "messages[0]: an assistant turn without a prompt; expected a user or system message first",
        )
    weights = [message.get("weight") for message in checked if message["role"] == "assistant"]
    if not weights:
        raise InvalidTrajectory("assistant_missing", "messages: no assistant turn; expected one to learn from")
    if all(weight == 0 for weight in weights):
        raise InvalidTrajectory(
            "nothing_to_learn", "messages: every assistant turn has weight 0; give the ones to learn weight 1"
        )


def unlearnable_turns(messages: list[dict[str, Any]], tools: object) -> dict[int, str]:
    """The supervised assistant turns that `check_conversation` would refuse, with its codes, by their indices.

    A turn's fault may show in what follows it: a result that answers none of its calls. With weight 0 for all of them
    the conversation passes, if it has anything left to learn. Takes time linear in it.

    Raises:
        InvalidTrajectory: what stands in front of the first turn, or the tools, would be refused.
    """
    declared = check_tools(tools)
    faults: dict[int, str] = {}
    pending: set[str] = set()
    turns = [number for number, message in enumerate(messages) if message.get("role") == "assistant"]
    for number, message in enumerate(messages[: turns[0] if turns else None]):
        _check_message(message, _role(message, f"messages[{number}]"), f"messages[{number}]", declared, pending)
    for start, end in zip(turns, [*turns[1:], len(messages)], strict=True):
        before = set(pending)
        try:
            _check_segment(messages, range(start, end), declared, pending)
        except InvalidTrajectory as fault:
            if messages[start].get("weight") == 0:
                raise
            faults[start] = fault.code
            pending.clear()
            pending |= before
            _check_segment(messages, range(start, end), declared, pending, context=True)
    return faults


def _check_segment(
    messages: list[dict[str, Any]],
    places: range,
    declared: frozenset[str] | None,
    pending: set[str],
    *,
    context: bool = False,
) -> None:
    """An assistant turn with what follows it up to the next one."""
    context = context or messages[places[0]].get("weight") == 0
    for number in places:
        place = f"messages[{number}]"
        role = _role(messages[number], place)
        if context and role in ("assistant", "tool", "function"):
            _check_context(messages[number], role, place, pending)
        else:
            _check_message(messages[number], role, place, declared, pending)


def check_prompt(messages: object, tools: object) -> None:
    """Refuse a conversation that can't be answered. All of it is context.

    Raises:
        InvalidTrajectory: as `check_conversation`, and `canonical_json`'s codes, for texts no tokenizer takes.
    """
    try:
        canonical_json({"messages": messages, "tools": tools}, nul=True)
    except InvalidJson as error:
        raise InvalidTrajectory(error.code, str(error)) from error
    _check_messages(messages, tools, chat=True)


def last_supervised(messages: list[dict[str, Any]]) -> int:
    """Index of the last assistant turn that is learned from, of checked messages."""
    return max(n for n, m in enumerate(messages) if m["role"] == "assistant" and m.get("weight") != 0)


def _check_messages(messages: object, tools: object, *, chat: bool) -> list[dict[str, Any]]:
    declared = check_tools(tools)
    if messages is None:
        raise InvalidTrajectory("messages_missing", "messages: missing; expected a list of chat messages")
    if not isinstance(messages, list):
        raise InvalidTrajectory("messages_not_list", f"messages: got {show(messages)}; expected a list")
    if not messages:
        raise InvalidTrajectory("messages_empty", "messages: empty; expected at least one message")
    pending: set[str] = set()
    context = chat
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        role = _role(message, place)
        if not chat and role == "assistant":
            context = message.get("weight") == 0 and not isinstance(message["weight"], bool)
        if chat or (context and role in ("assistant", "tool", "function")):
            _check_context(message, role, place, pending)
        else:
            _check_message(message, role, place, declared, pending)
    return messages


def _role(message: object, place: str) -> str:
    if not isinstance(message, dict):
        raise InvalidTrajectory("message_not_object", f"{place}: got {show(message)}; expected an object")
    role = message.get("role")
    if not isinstance(role, str) or role not in CONTEXT_ROLES:
        got = "missing" if role is None else f"got {show(role)}"
        raise InvalidTrajectory("role_unknown", f"{place}.role: {got}; expected one of {', '.join(ROLES)}")
    return role


def _check_context(message: dict[str, Any], role: str, place: str, pending: set[str]) -> None:
    """A message that is only read. What can't be shown to a model is refused, and nothing else."""
    content, calls, call = (message.get(key) for key in ("content", "tool_calls", "function_call"))
    if role != "assistant":
        _check_no_calls(message, role, place)
        if content is None and role not in ("tool", "function"):
            _check_content(message, place)
        if isinstance(answered := message.get("tool_call_id"), str):
            pending.discard(answered)
    if content is not None:
        _check_content(message, place, thoughts=role == "assistant")
    if calls is not None and not isinstance(calls, list):
        raise InvalidTrajectory("tool_calls_malformed", f"{place}.tool_calls: got {show(calls)}; expected a list")
    for number, each in enumerate(calls or ()):
        _check_past_call(each, f"{place}.tool_calls[{number}]", pending)
    if role == "assistant" and call is not None:
        _check_past_function(call, f"{place}.function_call")


def _check_past_call(call: object, place: str, pending: set[str]) -> None:
    """A call of a function, or OpenAI's call of a custom tool, whose input is a text."""
    kind = call.get("type") if isinstance(call, dict) else None
    if not isinstance(call, dict) or kind not in (None, "function", "custom"):
        raise InvalidTrajectory(
            "tool_calls_malformed", f'{place}: got {show(call)}; expected an object of type "function"'
        )
    kind = "custom" if kind == "custom" else "function"
    _check_past_function(call.get(kind), f"{place}.{kind}")
    if is_name(call.get("id")):
        pending.add(call["id"])


def _check_past_function(function: object, place: str) -> None:
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise InvalidTrajectory("tool_call_no_name", f"{place}.name: got {show(name)}; expected the function's name")


def _check_no_calls(message: dict[str, Any], role: str, place: str) -> None:
    if message.get("tool_calls"):
        raise InvalidTrajectory(
            "tool_calls_misplaced", f"{place}.tool_calls: role {role!r}; only assistants call tools"
        )


def _check_message(
    message: dict[str, Any], role: str, place: str, declared: frozenset[str] | None, pending: set[str]
) -> None:
    """One message of training; `pending` holds the ids of calls not yet answered and is kept up to date."""
    if role == "function":
        raise InvalidTrajectory("role_unknown", f"{place}.role: got 'function'; expected one of {', '.join(ROLES)}")
    if role == "assistant":
        _check_assistant(message, place, declared, pending)
        return
    _check_no_calls(message, role, place)
    if message.get("weight") is not None:
        raise InvalidTrajectory("weight_misplaced", f"{place}.weight: role {role!r}; only assistant turns have weights")
    _check_content(message, place)
    if role == "tool":
        _check_answers_call(message.get("tool_call_id"), place, pending)


def _check_assistant(message: dict[str, Any], place: str, declared: frozenset[str] | None, pending: set[str]) -> None:
    calls = message.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        raise InvalidTrajectory("tool_calls_malformed", f"{place}.tool_calls: got {show(calls)}; expected a list")
    if message.get("content") is not None:
        _check_content(message, place)
    if not calls and not _has_text(message.get("content")):
        raise InvalidTrajectory("assistant_empty", f"{place}: neither content nor tool_calls; expected one of them")
    weight = message.get("weight")
    if weight is not None and (isinstance(weight, bool) or weight not in (0, 1)):
        raise InvalidTrajectory("weight_invalid", f"{place}.weight: got {show(weight)}; expected 0 or 1")
    for number, call in enumerate(calls or ()):
        _check_call(call, f"{place}.tool_calls[{number}]", declared, pending)


def _check_content(message: dict[str, Any], place: str, *, thoughts: bool = False) -> None:
    content = message.get("content")
    if isinstance(content, str):
        return
    if content is None:
        raise InvalidTrajectory(
            "content_missing",
            f"{place}.content: missing; only an assistant turn with tool_calls may have none",
        )
    if not isinstance(content, list):
        raise InvalidTrajectory(
            "content_type", f"{place}.content: got {show(content)}; expected a string or a list of text parts"
        )
    for number, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if thoughts and kind in _THOUGHT_PARTS:
            continue
        if not isinstance(kind, str) or kind not in _TEXT_PARTS or not isinstance(part.get(kind), str):
            raise InvalidTrajectory(
                "content_part",
                f"{place}.content[{number}]: got {show(part)}; expected "
                '{"type": "text", "text": "..."}: only text is read, no images, sounds or files',
            )


def _has_text(content: object) -> bool:
    return (
        any(part.get("text") or part.get("refusal") for part in content) if isinstance(content, list) else bool(content)
    )


def _check_answers_call(call_id: object, place: str, pending: set[str]) -> None:
    if not is_name(call_id):
        raise InvalidTrajectory(
            "tool_call_id_missing",
            f"{place}.tool_call_id: got {show(call_id)}; expected the id of the call it answers",
        )
    if call_id not in pending:
        raise InvalidTrajectory(
            "tool_call_unmatched",
            f"{place}.tool_call_id: {show(call_id)} is no earlier call still waiting for its result; "
            f"waiting: {show(sorted(pending))}",
        )
    pending.discard(call_id)


def _check_call(call: object, place: str, declared: frozenset[str] | None, pending: set[str]) -> None:
    if not isinstance(call, dict) or call.get("type", "function") != "function":
        raise InvalidTrajectory(
            "tool_calls_malformed", f'{place}: got {show(call)}; expected an object of type "function"'
        )
    call_id = call.get("id")
    if not is_name(call_id):
        raise InvalidTrajectory("tool_call_no_id", f"{place}.id: got {show(call_id)}; expected {EXPECTED_NAME}")
    if call_id in pending:
        raise InvalidTrajectory(
            "tool_call_duplicate_id",
            f"{place}.id: {show(call_id)} is another open call's id; expected a new one",
        )
    function = call.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not is_name(name):
        raise InvalidTrajectory(
            "tool_call_no_name", f"{place}.function.name: got {show(name)}; expected {EXPECTED_NAME}"
        )
    _check_arguments(function.get("arguments"), f"{place}.function.arguments")
    if declared is not None and name not in declared:
        raise InvalidTrajectory(
            "tool_call_undeclared",
            f"{place}.function.name: {show(name)} is not in tools, which declare {show(sorted(declared))}",
        )
    pending.add(call_id)


def _check_arguments(arguments: object, place: str) -> None:
    problem = f"got {show(arguments)}"
    if isinstance(arguments, str):
        try:
            parsed = parse_json(arguments)
            if isinstance(parsed, dict):
                canonical_json(parsed, place)
                return
        except InvalidJson as error:
            problem = str(error)
    raise InvalidTrajectory(
        "tool_call_arguments", f'{place}: {problem}; expected the JSON text of an object, such as "{{}}"'
    )
