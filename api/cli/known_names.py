"""Which name that the service knows was probably meant by one that it does not know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memgen_client import ApiError, JsonClient

_NOUNS = {
    "adapter_not_found": "adapters",
    "model_not_found": "adapters",
    "task_not_found": "tasks",
    "judge_not_found": "judges",
    "schedule_not_found": "schedules",
    "webhook_not_found": "webhooks",
    "loop_not_found": "loops",
}
"""What is listed by the client, by the error's code."""
_NEAR = 0.75
"""Least ratio of `difflib`, which is 1 for the same."""


def nearest_name(client: JsonClient, error: ApiError, given: Mapping[str, object]) -> str | None:
    """The name that was probably meant where one was not found; None if none is near, or none may be listed.

    Args:
        given: the command's parameters.
    """
    from memgen_client import ClientError

    if error.code not in _NOUNS:
        return None
    try:
        known = names_of(client, _NOUNS[error.code])
    except ClientError:
        return None
    near = (get_close_matches(word, known, 1, _NEAR) for word in _words(given.values()) if word not in known)
    return next((found[0] for found in near if found), None)


def names_of(client: JsonClient, noun: str) -> list[str]:
    rows: list[dict[str, Any]] = getattr(client, noun).list()
    return [row["name"] for row in rows]


def _words(values: Iterable[object]) -> list[str]:
    """Texts among the values, and in their lists; of `bot@7` the adapter."""
    flat = [each for value in values for each in (value if isinstance(value, list | tuple) else [value])]
    return [each.partition("@")[0] for each in flat if isinstance(each, str)]
