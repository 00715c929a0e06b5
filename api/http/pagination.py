"""Pages of a listing and the opaque cursors between them. Knows no noun."""

import base64
import binascii
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

from registry.errors import InvalidCursor
from registry.json_text import show

_Item = TypeVar("_Item")
_Row = TypeVar("_Row")

Cursor = Annotated[
    str | None,
    Query(description="`next_cursor` of the page before; leave out for the first page", max_length=64),
]
PageLimit = Annotated[int, Query(ge=1, le=200, description="Most items of one page")]


class Page(BaseModel, Generic[_Item]):
    data: list[_Item]
    next_cursor: str | None = Field(description="Send as `cursor` for the next page; null on the last one")


def encode_cursor(seq: int) -> str:
    packed = struct.pack(">q", seq)
    return base64.urlsafe_b64encode(packed + struct.pack(">I", zlib.crc32(packed))).decode()


def decode_cursor(cursor: str | None) -> int:
    """The `seq` after which the page begins; 0 without a cursor.

    Raises:
        InvalidCursor: not a cursor that a listing gave out; its checksum is wrong.
    """
    if cursor is None:
        return 0
    try:
        packed, checksum = struct.unpack(">8sI", base64.b64decode(cursor, altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, struct.error):
        packed, checksum = b"", -1
    if zlib.crc32(packed) != checksum:
        raise InvalidCursor(f"cursor {show(cursor)} was not given out by a listing; send its `next_cursor` unchanged")
    return int(struct.unpack(">q", packed)[0])


def make_page(
    rows: Sequence[_Row], limit: int, *, seq: Callable[[_Row], int], render: Callable[[_Row], _Item]
) -> Page[_Item]:
    """A page of at most `limit` of the rows; one row more than `limit` says that there is a next page."""
    shown = rows[:limit]
    return Page(
        data=[render(row) for row in shown],
        next_cursor=encode_cursor(seq(shown[-1])) if len(rows) > limit else None,
    )
