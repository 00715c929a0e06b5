"""Drafts: checked trajectories that are not rows yet, with the hash that makes two sent ones the same."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.errors import InvalidJson, InvalidTrajectory
from registry.json_text import canonical_json
from registry.models import JsonObject


@dataclass(frozen=True, slots=True)
class Draft:
    """A checked trajectory that is not a row yet."""

    task: str | None
    messages: list[Any]
    tools: list[Any] | None
    trajectory_id: str | None
    session_id: str | None
    reward: float | None
    reward_source: str | None
    success: bool | None
    adapter_version: str | None
    metadata: JsonObject
    content_hash: str
    sampled: list[Any] | None = None
    """Its turns as they were sampled; set by the recording alone."""


Sent = tuple[int, Draft | InvalidTrajectory]
"""(line number, its draft or the refusal)"""


def content_hash(fields: Mapping[str, Any]) -> str:
    """Hash of all fields except the task, which is part of the row's key beside the hash. 64 hex digits.

    Two sent trajectories are the same if messages, tools, reward and its source, success, adapter version,
    metadata and the sender's ids are equal as JSON values. Order of keys and white space between them don't
    matter, an absent field equals null, and no tools equal an empty list.

    Raises:
        InvalidTrajectory: a value could not be stored (see `canonical_json`).
    """
    try:
        return hashlib.sha256(canonical_json(fields)).hexdigest()
    except InvalidJson as error:
        raise InvalidTrajectory(error.code, str(error)) from error
