"""Tasks by name: the built-in ones, those of installed packages, and any by its path.

A package offers tasks as entry points of the group `memgen.tasks`. All three forms say where a task is as
`package.module:attribute`; the module is imported when its task is made.
"""

import importlib
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, cast

from memgen.errors import ConfigError
from memgen.tasks.task import Task

ENTRY_POINTS = "memgen.tasks"

BUILT_IN = {
    "alfworld": "memgen.tasks.hub_datasets:alfworld",
    "bfcl": "memgen.tasks.bfcl:bfcl",
    "gpqa": "memgen.tasks.hub_datasets:gpqa",
    "gsm8k": "memgen.tasks.hub_datasets:gsm8k",
    "human-eval": "memgen.tasks.human_eval:human_eval",
    "kodcode": "memgen.tasks.hub_datasets:kodcode",
    "reasoning-gym": "memgen.tasks.reasoning:Reasoning",
    "textworld": "memgen.tasks.textworld:TextWorld",
    "trivia-qa": "memgen.tasks.hub_datasets:trivia_qa",
}
"""Path of each. A name may be followed by `:` and the task's first argument: `reasoning-gym:spell_backward`."""


def make_task(name: str, **options: Any) -> Task:
    """The task `name`, made with `options`.

    `name` is one of `task_names()`, with `:` and the first argument behind it where the task takes one, or a path
    `package.module:attribute` of a callable that returns a task, or of a task.

    Raises:
        ConfigError: no such task, or it does not take the options.
    """
    places = _places()
    known, _, argument = name.partition(":")
    if known in places:
        return _make(name, load(places[known]), [argument] if argument else [], options)
    if argument:
        return _make(name, load(name), [], options)
    raise ConfigError(
        f"task {name!r} is not known; expected one of {', '.join(sorted(places))}, or the path of your own as "
        "'package.module:attribute'"
    )


def task_names() -> list[str]:
    """The built-in tasks and those of installed packages."""
    return sorted(_places())


def _places() -> dict[str, str]:
    # A package adds names and takes none away: what a recorded name means must not change with what is installed.
    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)} | BUILT_IN


def load(place: str) -> Any:
    """The attribute of a module at `package.module:attribute`. Raises ConfigError if there is none."""
    module, _, attribute = place.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"no task at {place!r}: {error}. Expected 'package.module:attribute', importable from here, or one of "
            f"{', '.join(task_names())}"
        ) from error


def _make(name: str, found: Any, arguments: list[str], options: dict[str, Any]) -> Task:
    if not callable(found):
        if options:
            raise ConfigError(f"task {name!r} is ready-made; got the options {sorted(options)}, expected none")
        return cast(Task, found)
    try:
        return cast(Callable[..., Task], found)(*arguments, **options)
    except TypeError as error:
        raise ConfigError(f"task {name!r} does not take the options {sorted(options)}: {error}") from error
