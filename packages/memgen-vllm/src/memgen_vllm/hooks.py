"""Hooks: functions of vLLM that are wrapped by ours. All names are looked up before the first is changed."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from memgen_vllm.errors import WrongVllm


@dataclass(frozen=True)
class Hook:
    """`replacement(original, ...)` in the place of `owner.name`; for a classmethod `original` is bound to its class."""

    owner: Any
    name: str
    replacement: Callable[..., Any]


def install(hooks: Sequence[Hook]) -> None:
    """Put all hooks in place, or none. Raises WrongVllm and names what is missing."""
    missing = [f"{_name_of(hook.owner)}.{hook.name}" for hook in hooks if not hasattr(hook.owner, hook.name)]
    if missing:
        raise WrongVllm(
            f"this vLLM has no {', '.join(missing)}, which memgen-vllm hooks; install the minor that it was tested with"
        )
    for hook in hooks:
        _put(hook)


def _put(hook: Hook) -> None:
    original = getattr(hook.owner, hook.name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return hook.replacement(original, *args, **kwargs)

    of_class = isinstance(vars(hook.owner).get(hook.name), classmethod)
    setattr(hook.owner, hook.name, staticmethod(wrapped) if of_class else wrapped)


def _name_of(owner: Any) -> str:
    return f"{getattr(owner, '__module__', '')}.{owner.__name__}".lstrip(".")
