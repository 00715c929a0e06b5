"""Names of tasks, adapters and aliases: what they may look like, and the two with a meaning of their own."""

import re

from registry.errors import InvalidName
from registry.json_text import show

BASE = "base"
"""The bare model, where a version or an adapter is named; no adapter has this name."""
CHAMPION = "champion"
"""Alias that requests for the bare adapter name go to; the one that the gate compares with."""
MAX_SESSION_CHARACTERS = 512
"""Longest id of a session. A request's `user`, of as many characters, names its session where nothing else does."""
NAME_PATTERN = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
"""`@` and `/` are kept free for `adapter@alias` and URLs."""
_NAME = re.compile(NAME_PATTERN.removesuffix("$") + r"\Z")


def is_valid_name(name: str) -> bool:
    return _NAME.match(name) is not None


def check_name(noun: str, name: str) -> str:
    """Return `name`, or raise InvalidName."""
    if not is_valid_name(name):
        raise InvalidName(f"{noun} name {show(name)}; expected {NAME_PATTERN}, such as `support-tickets`")
    return name
