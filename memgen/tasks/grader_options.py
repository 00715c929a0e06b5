"""Whether a spec's options are what a grader takes: their names and the types of their values."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from memgen.errors import UnknownGrader


def check_options(kind: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """`factory` has keyword options annotated as bool, int, float or str; ranges are its own to check.

    Raises:
        UnknownGrader: an option is not known, missing, or of another type.
    """
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        raise UnknownGrader(
            f"grader {kind!r} does not take the options {sorted(options)}: {error}; "
            f"expected {option_text(factory) or 'none'}"
        ) from error
    hints = get_type_hints(factory)
    for name, value in options.items():
        if not _is_a(value, hints[name]):
            got, expected = f"{value!r} ({type(value).__name__})", hints[name].__name__
            raise UnknownGrader(f"grader {kind!r}: option {name!r} is {got}; expected {expected}")


def option_text(factory: Callable[..., Any]) -> str:
    """The options that `factory` takes, with their types and defaults; empty where it takes none."""
    return str(inspect.signature(factory).replace(return_annotation=inspect.Signature.empty))[1:-1].removeprefix("*, ")


def _is_a(value: Any, kind: type) -> bool:
    """JSON writes 1 for 1.0, and its booleans are no numbers."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)
