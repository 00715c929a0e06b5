"""Tasks that may be named by a stranger: built-in ones that need no network, with the options that are harmless.

`memgen.tasks.catalogue` imports any path and passes any option on, which is right for a library and
wrong for a service.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memgen.errors import ConfigError
from memgen.tasks.catalogue import make_task
from memgen.tasks.task import Task

OPTIONS: dict[str, frozenset[str]] = {
    "bfcl": frozenset({"categories", "max_characters"}),
    "reasoning-gym": frozenset({"options"}),
    "textworld": frozenset({"level", "theme", "show_commands"}),
}
"""Options of each. `reasoning-gym:<dataset>` names its dataset behind a colon."""
GAMES_FOLDER = "games"
"""A good name for a folder of generated games, beneath a service's own."""
_PLACES = ("file", "folder", "path", "dir")
"""Endings of a dataset's option names that are paths of files to read."""


def open_environment(name: str, options: Mapping[str, Any], *, folder: Path) -> Task:
    """The task of a name and options that a client sent.

    Args:
        folder: where generated games are kept.

    Raises:
        ConfigError: another name, or an option that is not in `OPTIONS` or has a wrong value.
        ModelNotFound: the task's wheel is not installed.
    """
    kind, _, argument = name.partition(":")
    if kind not in OPTIONS or bool(argument) != (kind == "reasoning-gym"):
        raise ConfigError(
            f"environment {name!r} is not known; expected bfcl, textworld, or reasoning-gym with one of its datasets, "
            "such as 'reasoning-gym:spell_backward'"
        )
    unknown = sorted(set(options) - OPTIONS[kind])
    if unknown:
        raise ConfigError(f"environment {name!r} got the options {unknown}; expected some of {sorted(OPTIONS[kind])}")
    if kind == "reasoning-gym":
        _check_dataset_options(name, options.get("options", {}))
    place = {"folder": folder} if kind == "textworld" else {}
    return make_task(name, **options, **place)


def _check_dataset_options(name: str, options: object) -> None:
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise ConfigError(f"environment {name!r} got options {options!r} for its dataset; expected names and values")
    places = sorted(key for key in options if key.endswith(_PLACES))
    if places:
        raise ConfigError(
            f"environment {name!r} got the dataset's options {places}; files are not for a request to name"
        )
