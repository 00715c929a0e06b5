"""What a name of a task, adapter or alias may look like."""

import re

from registry.errors import InvalidName

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


def check_name(noun: str, name: str) -> str:
    """Return `name`, or raise InvalidName. `@` and `/` are kept free for `adapter@alias` and URLs."""
    if not _NAME.fullmatch(name):
        raise InvalidName(
            f"{noun} name {name!r} is not valid; expected 1 to 64 characters of a-z, 0-9, '_', '.', '-', "
            "beginning with a letter or digit"
        )
    return name
