"""Splitter of JSON files that are not one value a line: documents over many lines, and lists of trajectories.

A file is taken as lines unless its beginning says otherwise, and is taken as lines again as soon as what it seemed to
be does not come true: a broken first line must not swallow the good ones behind it. Memory stays bounded by the longest
document, and time by the bytes: nothing is parsed here but what might be a document.
"""

import re
from collections.abc import Iterator

from registry.errors import InvalidJson
from registry.json_text import parse_json
from registry.trajectories.jsonl import JsonLine, LineSplitter

_BOM = b"\xef\xbb\xbf"
_SPACES = b" \t\r\n"
_IN_TEXT = re.compile(rb'["\\]')
_IN_VALUE = re.compile(rb'["{}\[\]]')
_BETWEEN = re.compile(rb'["{}\[\],]')
_BLANK = re.compile(rb"[ \t\r\n]+")
_BLANK_LINES = re.compile(rb"[ \t\r\n]*\n")


class JsonSplitter:
    """Takes bytes by `feed` and returns lines, or the documents of a file that is no JSONL, as they become complete.

    - The first line is a JSON object: JSONL.
    - The file begins with `[`: a list, whose items are returned one by one, numbered by their place.
    - Otherwise: documents one behind the other, as `jq` writes them, numbered by their place; or lines after all.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._head: bytearray | None = bytearray()
        """What was read before it is known what the file is, without the blank lines before it."""
        self._splitter: LineSplitter | _DocumentSplitter | _ListSplitter = LineSplitter(max_bytes)

    @property
    def number(self) -> int:
        """Lines, documents or items ended so far."""
        return self._splitter.number

    @property
    def unit(self) -> str:
        """What `number` counts."""
        return self._splitter.unit

    @property
    def cut(self) -> bool:
        """Whether the file ended inside a list. After `finish`."""
        return isinstance(self._splitter, _ListSplitter) and not self._splitter.ended

    def feed(self, piece: bytes) -> Iterator[JsonLine]:
        head = self._head
        if head is None:
            yield from self._split(piece)
            return
        searched = len(head)
        head += piece
        if (blank := _BLANK_LINES.match(head)) is not None:  # a file of nothing else holds very many
            self._splitter.number += head.count(b"\n", 0, blank.end())
            del head[: blank.end()]
            searched = 0
        # A long first line is looked at once, when it is whole.
        if head.find(b"\n", searched) >= 0 or len(head) > self._max:
            yield from self._decide(bytes(head))

    def finish(self) -> Iterator[JsonLine]:
        if self._head is not None:
            yield from self._decide(bytes(self._head))
        yield from self._splitter.finish()
        yield from self._split(b"")
        if isinstance(self._splitter, LineSplitter):
            yield from self._splitter.finish()

    def _decide(self, head: bytes) -> Iterator[JsonLine]:
        self._head = None
        text = head.removeprefix(_BOM).lstrip(_SPACES)
        blank_lines = self._splitter.number
        if text.startswith(b"["):
            self._splitter, head = _ListSplitter(self._max, blank_lines), text
        elif text.startswith(b"{") and not _is_json(text.partition(b"\n")[0]):
            self._splitter, head = _DocumentSplitter(self._max, blank_lines), text
        yield from self._split(head)

    def _split(self, piece: bytes) -> Iterator[JsonLine]:
        yield from self._splitter.feed(piece)
        while not isinstance(self._splitter, LineSplitter) and (rest := self._splitter.rest) is not None:
            # Neither a list nor a document any more: what is left are lines.
            self._splitter = LineSplitter(self._max, self._splitter.lines)
            yield from self._splitter.feed(rest)


class _Brackets:
    """How deep in brackets a text is, read piece by piece. Texts in quotes are stepped over."""

    def __init__(self) -> None:
        self.depth = 0
        self._in_text = False
        self._escaped = False

    def events(self, piece: bytes, start: int, *, commas_at: int = -1) -> Iterator[tuple[bytes, int]]:
        """(bracket or comma, its place) for what changes the depth, after it was changed; commas at one depth only."""
        if self._escaped and start < len(piece):
            start, self._escaped = start + 1, False
        while True:
            pattern = _IN_TEXT if self._in_text else _BETWEEN if self.depth == commas_at else _IN_VALUE
            found = pattern.search(piece, start)
            if found is None:
                return
            sign, start = found[0], found.end()
            if sign == b'"':
                self._in_text = not self._in_text
            elif sign == b"\\":
                if start == len(piece):
                    self._escaped = True
                start += 1
            elif sign == b",":
                yield sign, start - 1
            else:
                self.depth += 1 if sign in b"{[" else -1
                yield sign, start - 1


class _DocumentSplitter:
    """Objects one behind the other. `rest` is what is no document, and everything behind it, to be read as lines."""

    unit = "document"

    def __init__(self, max_bytes: int, lines: int) -> None:
        self.number = 0
        self.lines = lines
        """Newlines before the document that is being read."""
        self.rest: bytes | None = None
        self._max = max_bytes
        self._document = bytearray()
        self._brackets = _Brackets()

    def feed(self, piece: bytes) -> Iterator[JsonLine]:
        start = 0 if self._document else self._between(piece, 0)
        if self.rest is not None:
            return
        for _, place in self._brackets.events(piece, start):
            if self._brackets.depth > 0:
                continue
            document = bytes(self._document) + piece[start : place + 1]
            if not _is_json(document):
                self.rest = document + piece[place + 1 :]
                return
            self._document.clear()
            self.number += 1
            self.lines += document.count(b"\n")
            yield JsonLine(self.number, document)
            start = self._between(piece, place + 1)
            if self.rest is not None:
                return
        self._document += piece[start:]
        if len(self._document) > self._max:
            self.rest = bytes(self._document)

    def finish(self) -> Iterator[JsonLine]:
        if self._document and self.rest is None:
            self.rest = bytes(self._document)
        return iter(())

    def _between(self, piece: bytes, start: int) -> int:
        """The place of the next document's beginning; sets `rest` where something else stands."""
        blank = _BLANK.match(piece, start)
        found = blank.end() if blank else start
        self.lines += piece.count(b"\n", start, found)
        if found < len(piece) and piece[found : found + 1] != b"{":
            self.rest = piece[found:]
        return found


class _ListSplitter:
    """Items of one list. `rest` is what stands behind its end, or all of it if it is no list, to be read as lines."""

    unit = "item"

    def __init__(self, max_bytes: int, lines: int) -> None:
        self.number = 0
        self.lines = lines
        """Newlines before `rest`."""
        self.rest: bytes | None = None
        self.ended = False
        self._first_line = lines
        self._max = max_bytes
        self._item = bytearray()
        self._too_long = False
        self._brackets = _Brackets()

    def feed(self, piece: bytes) -> Iterator[JsonLine]:
        if self.ended:
            self._after(piece)
            return
        start = 0
        for sign, place in self._brackets.events(piece, 0, commas_at=1):
            depth = self._brackets.depth
            if depth == 1 and sign == b"[":
                start = place + 1  # the list's own bracket
            elif depth == 0 or sign == b",":
                self._keep(piece[start:place])
                if self._is_no_list():
                    self._give_up(piece[place:])
                    return
                yield from self._end_item()
                start = place + 1
            if depth == 0:
                self.lines += piece.count(b"\n", 0, start)
                self.ended = True
                self._after(piece[start:])
                return
        self._keep(piece[start:])
        self.lines += piece.count(b"\n")

    def finish(self) -> Iterator[JsonLine]:
        if not self.ended:
            if self.number == 0 and not self._too_long:
                self._give_up(b"")
            else:
                yield from self._end_item()  # cut off: refused as what it is, no JSON

    def _is_no_list(self) -> bool:
        """Whether already the first item is no JSON, so that this is a broken first line rather than a list."""
        return (
            self.number == 0 and not self._too_long and bool(item := bytes(self._item).strip()) and not _is_json(item)
        )

    def _give_up(self, piece: bytes) -> None:
        self.rest, self.ended, self.lines = b"[" + bytes(self._item) + piece, True, self._first_line

    def _after(self, piece: bytes) -> None:
        if behind := piece.lstrip(_SPACES):
            self.rest = behind
        self.lines += piece.count(b"\n", 0, len(piece) - len(behind))

    def _keep(self, part: bytes) -> None:
        if len(self._item) + len(part) > self._max:
            self._too_long = True
            self._item.clear()
        if not self._too_long:
            self._item += part

    def _end_item(self) -> Iterator[JsonLine]:
        data = bytes(self._item).strip(_SPACES)
        if data or self._too_long:
            self.number += 1
            yield JsonLine(self.number, None if self._too_long else data)
        self._item.clear()
        self._too_long = False


def _is_json(text: bytes) -> bool:
    try:
        parse_json(text)
    except InvalidJson as error:
        # These are values, only not good ones: the file has the shape that it seems to have.
        return error.code in ("duplicate_key", "not_finite", "too_deep")
    return True
