"""Format `chat`: OpenAI's chat messages and tools, in the envelope. Pure; knows no row.

`registry.trajectories.conversations` checks the conversation, `registry.trajectories.formats.envelope` the rest.
"""

from typing import Any

from registry.errors import InvalidTrajectory
from registry.json_text import show
from registry.models import JsonObject
from registry.trajectories.conversations import ROLES, check_conversation
from registry.trajectories.draft import Draft, content_hash
from registry.trajectories.formats.envelope import ENVELOPE, TASK, read_envelope, read_task
from registry.trajectories.formats.mapping import DROPPED, Mapped

_CONVERSATION: JsonObject = {
    "messages": {
        "type": "array",
        "minItems": 2,
        "description": "OpenAI's chat format; assistant turns may carry `weight` 0 (context only) or 1.",
        "items": {"type": "object", "required": ["role"], "properties": {"role": {"enum": list(ROLES)}}},
    },
    "tools": {"type": ["array", "null"], "items": {"type": "object"}, "description": "OpenAI's function tools."},
}
_IGNORED: JsonObject = {"parallel_tool_calls": {"type": "boolean", "description": "Ignored."}}
"""Fields of OpenAI's fine-tuning format that steer sampling and say nothing to learn."""
FIELDS = (*_CONVERSATION, TASK.name, *(field.name for field in ENVELOPE))

SCHEMA: JsonObject = {
    "type": "object",
    "required": ["messages"],
    "additionalProperties": False,
    "properties": {
        **_CONVERSATION,
        **{field.name: field.schema for field in (TASK, *ENVELOPE)},
        **_IGNORED,
    },
}

MAPPING = (
    Mapped("`messages[]`", "`messages[]`", "OpenAI's roles, texts, calls and results; other fields are kept"),
    Mapped("`messages[].weight`", "`weight`", "0: context, not learned from; absent: 1"),
    Mapped("`tools[]`", "`tools[]`", "OpenAI's function tools"),
    Mapped(
        "`task`, `trajectory_id`, `session_id`, `reward`, `reward_source`, `success`, `adapter_version`, `metadata`",
        "the same",
    ),
    Mapped("`parallel_tool_calls`", DROPPED, "it steers sampling"),
    Mapped("any other field", "refused", "`unknown_field`; put what is your own into `metadata`"),
)


def read(item: object) -> Draft:
    """The draft of one parsed object. A field that is null counts as absent.

    Raises:
        InvalidTrajectory: at the first fault; `check_conversation` and `canonical_json` have more codes.
    """
    if not isinstance(item, dict):
        raise InvalidTrajectory("not_an_object", f"got {show(item)}; expected a JSON object with `messages`")
    unknown = [key for key in item if key not in FIELDS and key not in _IGNORED]
    if unknown:
        raise InvalidTrajectory(
            "unknown_field",
            f"unknown fields {', '.join(map(show, unknown[:5]))}; expected {', '.join(FIELDS)}. "
            "Put what is your own into `metadata`.",
        )
    fields: dict[str, Any] = {
        **read_envelope(item),
        "messages": item.get("messages"),
        "tools": item.get("tools") or None,
    }
    task = read_task(item)
    check_conversation(item.get("messages"), item.get("tools"))
    # The content hash also finds what can't be stored, before anything else reads the texts.
    return Draft(task=task, content_hash=content_hash(fields), **fields)


def write(draft: Draft) -> JsonObject:
    """The object that `read` reads as this draft: what is absent is left out."""
    fields = {name: getattr(draft, name) for name in FIELDS}
    return {name: value for name, value in fields.items() if value is not None and value != {}}
