"""Format `atif`: documents of the Agent Trajectory Interchange Format, up to version 1.8. Pure; knows no row.

The models of the package `atif` check a document. Fields that they don't know are dropped rather than refused: agents
write more than the standard has. Steps copied from another trajectory are context: they have been learned from there.
Subagents that a document embeds are trajectories of their own.
"""

import re
from collections import deque
from collections.abc import Iterator
from typing import Any

from atif import ContentPart, Step, Trajectory
from pydantic import ValidationError

from registry.errors import InvalidTrajectory
from registry.json_text import show
from registry.models import JsonObject
from registry.trajectories.draft import Draft
from registry.trajectories.formats import chat
from registry.trajectories.formats.mapping import DROPPED, Mapped
from registry.trajectories.formats.turns import Call, Turns, foreign_envelope, read_tools

_VERSION = re.compile(r"ATIF-v1\.([0-9])(\.[0-9]+)?")
_NEWEST_MINOR = 8
_SERVED_VERSION = re.compile(r"[a-z0-9][a-z0-9._-]*@[0-9]+")
"""A model's name that is a version of an adapter here."""
_SHOWN_FAULTS = 3
_DROPPED = ("final_metrics",)
_STEP_DROPPED = ("timestamp", "model_name", "reasoning_effort", "metrics", "extra")
_NO_WORDS = ("(tool use)",)
"""What agents write as the message of a step that only calls: the standard has no step without one."""

SCHEMA: JsonObject = {
    "type": "object",
    "required": ["schema_version", "agent", "steps"],
    "description": "A document of ATIF, version 1.8 or earlier; embedded subagents become trajectories of their own.",
    "properties": {
        "schema_version": {"type": "string", "examples": ["ATIF-v1.8"]},
        "agent": {"type": "object"},
        "steps": {"type": "array", "items": {"type": "object"}},
    },
}
MAPPING = (
    Mapped("`schema_version`", "`metadata.atif.schema_version`", "`ATIF-v1.0` to `-v1.8`; else `atif_version`"),
    Mapped("`trajectory_id`, `session_id`", "the same"),
    Mapped("`agent.name`, `.version`, `.model_name`", "`metadata.atif`", "a model `bot@7` is also `adapter_version`"),
    Mapped("`agent.tool_definitions`", "`tools`", "bare functions are wrapped"),
    Mapped("step of `source` system, user", "message of that role", ""),
    Mapped("step of `source` agent", "assistant turn", "`message` is its content"),
    Mapped("`steps[].is_copied_context`", "`weight` 0", "copied from another trajectory: context only"),
    Mapped("`steps[].llm_call_count` 0", "`weight` 0", "no model said it"),
    Mapped("agent step without text and calls", "`weight` 0", "nothing to learn"),
    Mapped("`steps[].reasoning_content`", "`reasoning_content`", "kept, and not learned from"),
    Mapped(
        "message `Executed NAME ID` or `(tool use)` of a step with calls", DROPPED, "a placeholder; no model said it"
    ),
    Mapped("`steps[].tool_calls[]`", "`tool_calls[]`", "arguments become JSON text"),
    Mapped(
        "`observation.results[]` with `source_call_id`",
        "tool message",
        "of that call of the step; where the step calls nothing, of an earlier one",
    ),
    Mapped(
        "`observation.results[]` without",
        "tool message of the next open call of the step",
        "the last call takes what is left over; a user message where the step has no calls, as terminal agents see it",
    ),
    Mapped("content parts of type text", "text parts", ""),
    Mapped("content parts of type image, audio", "refused", "`content_part`: only text is read"),
    Mapped("`extra.reward`, `.success`, `.reward_source`", "the same", "where they are of their type"),
    Mapped("`extra.memgen`", "`task`, `reward`, ...", "fields of the format `chat`"),
    Mapped("other `extra`, `notes`, `continued_trajectory_ref`", "`metadata`", ""),
    Mapped("`subagent_trajectories[]`", "a trajectory each", "`metadata.atif.parent` names the one around it"),
    Mapped("`subagent_trajectory_ref`", DROPPED, "a call's result without content is an empty one"),
    Mapped("`metrics`, `final_metrics`", DROPPED, "token ids and log-probabilities are of another tokenizer"),
    Mapped(
        "`timestamp`, `model_name`, `reasoning_effort`, `extra` of steps, calls and results",
        DROPPED,
        "of steps, they are not even checked",
    ),
    Mapped("unknown fields", DROPPED, ""),
)


def read(item: object) -> Iterator[Draft | InvalidTrajectory]:
    """The document's own trajectory, and one for each subagent inside.

    Raises:
        InvalidTrajectory: `not_an_object`, `atif_version` or `atif_invalid`: it is no such document.
    """
    waiting: deque[tuple[Trajectory, JsonObject]] = deque([(_document(item), {})])
    while waiting:
        document, parent = waiting.popleft()
        # Known whatever becomes of the document itself: its subagents are not refused with it.
        own: JsonObject = {"task": parent.get("task"), "parent": document.trajectory_id or document.session_id}
        try:
            fields = _envelope(document, parent)
            own["task"] = fields.get("task")
            yield chat.read({**fields, **_conversation(document)})
        except InvalidTrajectory as refusal:
            yield refusal
        waiting += [(subagent, own) for subagent in document.subagent_trajectories or ()]


def _document(item: object) -> Trajectory:
    if not isinstance(item, dict):
        raise InvalidTrajectory("not_an_object", f"got {show(item)}; expected an ATIF document, a JSON object")
    version = item.get("schema_version")
    known = _VERSION.fullmatch(version) if isinstance(version, str) else None
    if known is None or int(known[1]) > _NEWEST_MINOR:
        raise InvalidTrajectory(
            "atif_version", f"schema_version: got {show(version)}; expected ATIF-v1.{_NEWEST_MINOR} or an earlier 1.x"
        )
    item = _only_read(item)
    try:
        return Trajectory.model_validate(item)
    except ValidationError as error:
        unknown = [
            fault["loc"]
            for fault in error.errors(include_url=False, include_input=False)
            if fault["type"] == "extra_forbidden"
        ]
        if not unknown:
            raise _invalid(error) from error
    try:
        return Trajectory.model_validate(_without(item, unknown))
    except ValidationError as error:
        raise _invalid(error) from error


def _invalid(error: ValidationError) -> InvalidTrajectory:
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    shown = "; ".join(
        f"{'.'.join(map(str, fault['loc']))[:200]}: {fault['msg'][:200]}" for fault in faults[:_SHOWN_FAULTS]
    )
    more = f"; and {len(faults) - _SHOWN_FAULTS} more" if len(faults) > _SHOWN_FAULTS else ""
    return InvalidTrajectory("atif_invalid", f"no ATIF document: {shown}{more}")


def _only_read(item: Any) -> Any:
    """A copy of a document without the fields that are dropped: how they are written is no reason to refuse it."""
    if not isinstance(item, dict):
        return item
    kept = {key: value for key, value in item.items() if key not in _DROPPED}
    for name, drop in (("steps", _only_read_step), ("subagent_trajectories", _only_read)):
        if isinstance(kept.get(name), list):
            kept[name] = [drop(each) for each in kept[name]]
    return kept


def _only_read_step(step: Any) -> Any:
    return {key: value for key, value in step.items() if key not in _STEP_DROPPED} if isinstance(step, dict) else step


def _without(item: Any, places: list[tuple[int | str, ...]]) -> Any:
    """A copy of a parsed JSON value without the members at these places."""
    by_first: dict[int | str, list[tuple[int | str, ...]]] = {}
    for place in places:
        by_first.setdefault(place[0], []).append(place[1:])
    if isinstance(item, dict):
        gone = {first for first, rest in by_first.items() if () in rest}
        return {
            key: _without(value, by_first[key]) if key in by_first else value
            for key, value in item.items()
            if key not in gone
        }
    if isinstance(item, list):
        # A place inside a union names the branch too; what is not there is no place of the list.
        named = [rest for first, rests in by_first.items() if isinstance(first, str) for rest in rests if rest]
        if named:
            return _without(item, named)
        return [_without(value, by_first[n]) if n in by_first else value for n, value in enumerate(item)]
    return item


def _conversation(document: Trajectory) -> JsonObject:
    turns = Turns()
    for step in document.steps:
        _add(turns, step)
    return {"messages": turns.messages, "tools": read_tools(document.agent.tool_definitions)}


def _envelope(document: Trajectory, parent: JsonObject) -> JsonObject:
    agent = document.agent
    about = {
        "schema_version": document.schema_version,
        "agent": agent.name,
        "agent_version": agent.version,
        "model": agent.model_name,
        "notes": document.notes,
        "continued_trajectory_ref": document.continued_trajectory_ref,
        "parent": parent.get("parent"),
    }
    fields = foreign_envelope(document.extra or {})
    fields.setdefault("trajectory_id", document.trajectory_id)
    fields.setdefault("session_id", document.session_id)
    if agent.model_name and _SERVED_VERSION.fullmatch(agent.model_name):
        fields.setdefault("adapter_version", agent.model_name)
    if parent.get("task"):
        fields.setdefault("task", parent["task"])
    fields["metadata"]["atif"] = {key: value for key, value in about.items() if value is not None}
    return fields


def _add(turns: Turns, step: Step) -> None:
    content = _content(step.message)
    if step.source == "agent":
        calls = [Call(call.function_name, call.arguments, call.tool_call_id) for call in step.tool_calls or ()]
        if any(content in (*_NO_WORDS, f"Executed {call.name} {call.id}") for call in calls):
            content = ""
        context = step.is_copied_context or step.llm_call_count == 0 or not (calls or content)
        turns.answer(
            content or (None if calls else content),
            calls,
            weight=0 if context else None,
            reasoning=step.reasoning_content,
        )
    else:
        turns.say(step.source, content)
    _add_results(turns, step)


def _add_results(turns: Turns, step: Step) -> None:
    """The results of a step's calls; ids are unique within a step only, so that each is looked up in its own first."""
    calls = turns.messages[-1].get("tool_calls", ())
    ids = {call.tool_call_id: sent["id"] for call, sent in zip(step.tool_calls or (), calls, strict=True)}
    contents: dict[str, list[str | list[JsonObject]]] = {}
    free: list[str | list[JsonObject]] = []
    for result in step.observation.results if step.observation else ():
        content = "" if result.content is None else _content(result.content)
        if result.source_call_id in ids:
            contents.setdefault(ids[result.source_call_id], []).append(content)
        elif not ids and result.source_call_id in turns.open_names:
            turns.result(content, call_id=result.source_call_id)
        elif content or ids:
            free.append(content)
    if not ids:
        for content in free:
            turns.say("user", content)
        return
    waiting = [call_id for call_id in ids.values() if call_id not in contents]
    for number, content in enumerate(free):
        target = waiting[min(number, len(waiting) - 1)] if waiting else [*ids.values()][-1]
        contents.setdefault(target, []).append(content)
    for call_id in ids.values():
        if call_id in contents:
            turns.result(_joined(contents[call_id]), call_id=call_id)


def _joined(contents: list[str | list[JsonObject]]) -> str | list[JsonObject]:
    if len(contents) == 1:
        return contents[0]
    texts = [content if isinstance(content, str) else "".join(part["text"] for part in content) for content in contents]
    return "\n".join(texts)


def _content(message: str | list[ContentPart]) -> str | list[JsonObject]:
    if isinstance(message, str):
        return message
    for number, part in enumerate(message):
        if part.type != "text":
            raise InvalidTrajectory(
                "content_part",
                f"content[{number}]: a part of type {part.type}; expected text, nothing else is read",
            )
    return [{"type": "text", "text": part.text} for part in message]
