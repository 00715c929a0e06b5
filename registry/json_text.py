"""JSON as the registry reads, stores and hashes it: strict in, one canonical form out. Knows no meaning of a value.

It refuses every value that PostgreSQL's jsonb could not give back as it was sent: NaN and Infinity, the NUL character,
lone surrogates, repeated keys, and nesting so deep that some later reader runs out of stack.
"""

import json
import re
import reprlib
import sys
from collections.abc import Iterable, Iterator

from registry.errors import InvalidJson

MAX_DEPTH = 100
"""Objects and lists inside one another. The interpreter's own limit is higher, but depends on the caller's stack."""


def parse_json(data: bytes | str) -> object:
    """The value of a JSON text.

    Raises:
        InvalidJson: `invalid_utf8`, `invalid_json`, `duplicate_key`, `not_finite` or `too_deep`.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidJson(
            "invalid_utf8", f"byte {error.start} is not UTF-8 ({error.reason}); expected UTF-8 text"
        ) from error
    try:
        return _DECODER.decode(text)
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise InvalidJson("invalid_json", f"not JSON: {error}; expected one JSON value") from error


def canonical_json(value: object, place: str = "", *, nul: bool = False) -> bytes:
    """The same bytes for equal values: sorted keys, no spaces, UTF-8. `place` names the value in messages.

    Args:
        nul: take the NUL character, for what is not stored.

    Raises:
        InvalidJson: `not_finite`, `nul_character`, `lone_surrogate` or `too_deep`: it could not be
        stored.
    """
    try:
        text = _ENCODER.encode(value)
    except RecursionError as error:
        raise _too_deep(place) from error
    except ValueError as error:
        raise InvalidJson(
            "not_finite",
            f"{_at(place)}a number is NaN, infinite or too large for a double; expected finite numbers",
        ) from error
    # Nearly every value passes these four quick looks at its text; only the rest is walked through.
    if text.count("{") + text.count("[") > MAX_DEPTH:
        _check_depth(value, place)
    if _LONG_NUMBER.search(text) is not None:
        _check_numbers(value, place)
    if "\\u0000" in text and not nul:
        _refuse_text(value, place, "\0", "nul_character", "holds the NUL character, can't be stored")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        _refuse_text(value, place, text[error.start], "lone_surrogate", "holds half of a surrogate pair")
        raise


def jsonl_lines(jsonl: bytes) -> list[bytes]:
    """The lines of a JSONL text that are not empty, without their newlines.

    A line ends at a newline and nowhere else: Python's `splitlines` also cuts at U+2028, U+0085 and other characters
    that JSON strings hold as they are.
    """
    return [line for line in jsonl.split(b"\n") if line]


def show(value: object) -> str:
    """A value in a message: short, and printable whatever it holds."""
    return _REPR.repr(value)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # add returns None
        raise InvalidJson("duplicate_key", f"an object has the key {show(twice)} twice; expected each key once")
    return found


def _refuse_constant(name: str) -> object:
    raise InvalidJson("not_finite", f"{name} is not JSON; expected finite numbers or null")


def _check_depth(value: object, place: str) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent) if isinstance(child, dict | list)]
        if not level:
            return
    raise _too_deep(place)


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _too_deep(place: str = "") -> InvalidJson:
    return InvalidJson("too_deep", f"{_at(place)}nested more than {MAX_DEPTH} levels deep; expected a flatter value")


def _refuse_text(value: object, place: str, character: str, code: str, complaint: str) -> None:
    for where, text in _leaves(value, place):
        if isinstance(text, str) and character in text:
            raise InvalidJson(code, f"{_at(where)}{show(text)} {complaint}; remove it")


def _check_numbers(value: object, place: str) -> None:
    for where, number in _leaves(value, place):
        if isinstance(number, int) and not -_LARGEST <= number <= _LARGEST:
            raise InvalidJson("not_finite", f"{_at(where)}a number is too large for a double; expected finite numbers")


def _leaves(value: object, place: str) -> Iterator[tuple[str, object]]:
    """Every string, number and constant with its place; a key stands at its object's place."""
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{place}[{number}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield place, key
            yield from _leaves(item, f"{place}.{key}" if place else key)
    else:
        yield place, value


def _at(place: str) -> str:
    return f"{place[:200].encode('utf-8', 'backslashreplace').decode()}: " if place else ""


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
_LARGEST = int(sys.float_info.max)
_LONG_NUMBER = re.compile(r"\d{309}")
"""So many digits as an integer must have that no double holds."""
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 60


def is_storable(text: str) -> bool:
    """Whether PostgreSQL takes it: no NUL, and no half of a surrogate pair."""
    return _UNSTORABLE.search(text) is None


def storable(text: str) -> str:
    """The text as PostgreSQL takes it, for what others have said: nothing that they say is to keep a row from its
    end."""
    return _UNSTORABLE.sub("\ufffd", text)


def one_line(text: str, most: int) -> str:
    """The beginning of a text by others as it can be stored, and shown on one line."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:most]
