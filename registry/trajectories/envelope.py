"""From one sent object to a draft of a trajectory: its envelope's fields, its conversation, its hashes. Pure.

Knows no row: whether the task exists, or the draft is already stored, is for `registry.trajectories.imports`.
"""

import math
from typing import Any

from registry.errors import InvalidTrajectory
from registry.json_text import parse_json, show
from registry.trajectories.conversations import MAX_NAME_CHARACTERS, check_conversation, is_name
from registry.trajectories.draft import Draft, content_hash

REWARD_SOURCES = ("grader", "user", "environment")
FIELDS = (
    "messages",
    "tools",
    "task",
    "trajectory_id",
    "session_id",
    "reward",
    "reward_source",
    "success",
    "adapter_version",
    "metadata",
)
IGNORED_FIELDS = ("parallel_tool_calls",)
"""Of OpenAI's fine-tuning format; steers sampling, says nothing to learn."""


def parse_trajectory(data: bytes) -> Draft:
    """The draft of one JSONL line. Raises InvalidTrajectory."""
    return read_trajectory(parse_json(data))


def read_trajectory(item: object) -> Draft:
    """The draft of one parsed object. A field that is null counts as absent.

    Raises:
        InvalidTrajectory: at the first fault; `check_conversation` and `canonical_json` have more codes.
    """
    if not isinstance(item, dict):
        raise InvalidTrajectory("not_an_object", f"got {show(item)}; expected a JSON object with `messages`")
    unknown = [key for key in item if key not in FIELDS and key not in IGNORED_FIELDS]
    if unknown:
        raise InvalidTrajectory(
            "unknown_field",
            f"unknown fields {', '.join(map(show, unknown[:5]))}; expected {', '.join(FIELDS)}. "
            "Put what is your own into `metadata`.",
        )
    fields: dict[str, Any] = {
        "trajectory_id": _identifier(item, "trajectory_id"),
        "session_id": _identifier(item, "session_id"),
        "reward": _reward(item.get("reward")),
        "reward_source": _reward_source(item.get("reward_source")),
        "success": _success(item.get("success")),
        "adapter_version": _identifier(item, "adapter_version"),
        "metadata": _metadata(item.get("metadata")),
        "messages": item.get("messages"),
        "tools": item.get("tools") or None,
    }
    task = item.get("task")
    if task is not None and not is_name(task):
        raise InvalidTrajectory("task_invalid", f"task: got {show(task)}; expected the name of a task")
    check_conversation(item.get("messages"), item.get("tools"))
    # The content hash also finds what can't be stored, before anything else reads the texts.
    return Draft(task=task, content_hash=content_hash(fields), **fields)


def _identifier(item: dict[str, Any], field: str) -> str | None:
    value = item.get(field)
    if value is None or (isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARACTERS):
        return value
    got = f"{len(value)} characters" if isinstance(value, str) else show(value)
    raise InvalidTrajectory(
        f"{field}_invalid", f"{field}: got {got}; expected a string of 1 to {MAX_NAME_CHARACTERS} characters"
    )


def _reward(value: object) -> float | None:
    if value is None:
        return None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass  # an integer beyond every double
    raise InvalidTrajectory("reward_invalid", f"reward: got {show(value)}; expected a finite number")


def _reward_source(value: object) -> str | None:
    if value is None or (isinstance(value, str) and value in REWARD_SOURCES):
        return value
    raise InvalidTrajectory(
        "reward_source_invalid",
        f"reward_source: got {show(value)}; expected one of {', '.join(REWARD_SOURCES)}",
    )


def _success(value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise InvalidTrajectory("success_invalid", f"success: got {show(value)}; expected true or false")


def _metadata(value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    raise InvalidTrajectory("metadata_invalid", f"metadata: got {show(value)}; expected an object")
