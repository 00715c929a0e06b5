"""Regular expressions that somebody sent: bounded in what they take to compile and to search."""

import re

import regex as timed_re  # type: ignore[import-untyped]  # ships no type information

from memgen.errors import ConfigError

_SEARCH_SECONDS = 1.0
_MOST_CHARACTERS = 2_000
_MOST_ATOMS = 10_000
_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(\d*)(?:,(\d*))?\}|.", re.DOTALL)


class BoundedPattern:
    """A compiled pattern.

    Raises:
        ConfigError: it is no regular expression, or one of more than 2,000 characters, or of more than 10,000 atoms
            once its counted repeats are written out, as compiling does.
    """

    def __init__(self, pattern: str, *, ignore_case: bool = False) -> None:
        if len(pattern) > _MOST_CHARACTERS:
            raise ConfigError(f"{len(pattern)} characters long; expected at most {_MOST_CHARACTERS}")
        if (atoms := written_out(pattern)) > _MOST_ATOMS:
            raise ConfigError(
                f"{pattern!r}: its counted repeats stand for {atoms} atoms; expected at most {_MOST_ATOMS}"
            )
        try:
            self._compiled = timed_re.compile(pattern, timed_re.IGNORECASE if ignore_case else 0)
        except (timed_re.error, RecursionError, OverflowError) as error:
            raise ConfigError(f"{pattern!r}: {error}; expected a regular expression") from error

    @property
    def has_group(self) -> bool:
        return bool(self._compiled.groups)

    def last(self, text: str) -> str | None:
        """Group 1 of the last match, the whole match where there is no group; white space as single spaces.

        None if nothing matches within a second.
        """
        try:
            found = list(self._compiled.finditer(text, timeout=_SEARCH_SECONDS))
        except TimeoutError:
            return None
        return " ".join((found[-1].group(1 if self.has_group else 0) or "").split()) if found else None


def written_out(pattern: str) -> int:
    """Atoms of a pattern with each counted repeat written out: `(ab{3}){2,4}` has 16."""
    sizes, last = [0], 0  # of the groups that are open, and of what a repeat would be of
    for token in _TOKEN.finditer(pattern):
        if token.group() == "(":
            sizes.append(0)
            last = 0
        elif token.group() == ")" and len(sizes) > 1:
            last = sizes.pop()
            sizes[-1] += last
        elif token.group(1) is not None:
            times = max((int(bound) for bound in token.groups() if bound), default=1)
            sizes[-1] += last * (times - 1)
            last *= times
        else:
            last = 1
            sizes[-1] += 1
    return sum(sizes)
