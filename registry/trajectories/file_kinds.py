"""What a file is that can't be one of trajectories, told by its first bytes: what was sent by mistake, and what to do.

No format of trajectories begins with any of these bytes. Pure; knows nothing of what trajectories are.
"""

from dataclasses import dataclass

_FROM_TABLE = "write it as JSONL first: `pandas.read_{}(FILE).to_json(OUT, orient='records', lines=True)`"
_UNPACK = "unpack it, and send the files in it one by one, plain or gzip"
_AS_UTF8 = "write it as UTF-8: `iconv -f UTF-16 -t UTF-8`"


@dataclass(frozen=True)
class _Kind:
    name: str
    advice: str
    signatures: tuple[bytes, ...]
    place: int = 0
    """Where in the file one of `signatures` stands."""


_KINDS = (
    _Kind("a Parquet file", _FROM_TABLE.format("parquet"), (b"PAR1",)),
    _Kind("an Arrow file", _FROM_TABLE.format("feather"), (b"ARROW1",)),
    _Kind("an SQLite database", "export its rows as JSONL first", (b"SQLite format 3\0",)),
    _Kind("a zip archive", _UNPACK, (b"PK\x03\x04", b"PK\x05\x06")),
    _Kind("a 7z archive", _UNPACK, (b"7z\xbc\xaf\x27\x1c",)),
    _Kind("a tar archive", _UNPACK, (b"ustar",), 257),
    _Kind("gzip data that was packed twice", "unpack it once", (b"\x1f\x8b",)),
    _Kind("packed by zstd", "unpack it (`zstd -d`), or pack it by gzip", (b"\x28\xb5\x2f\xfd",)),
    _Kind("packed by bzip2", "unpack it (`bunzip2`), or pack it by gzip", (b"BZh",)),
    _Kind("packed by xz", "unpack it (`unxz`), or pack it by gzip", (b"\xfd7zXZ\0",)),
    _Kind("UTF-16 text, as PowerShell's `>` writes it", _AS_UTF8, (b"\xff\xfe", b"\xfe\xff")),
    _Kind("a pointer of Git LFS", "fetch the file itself: `git lfs pull`", (b"version https://git-lfs.",)),
    _Kind(
        "a page of HTML, perhaps what a site said instead of the file",
        "look into it, and download the file again",
        (b"<!DOCTYPE html", b"<!doctype html", b"<html"),
    ),
    _Kind("a PDF", "send its data as JSONL", (b"%PDF-",)),
)
_LOOKED_AT_BYTES = max(kind.place + len(signature) for kind in _KINDS for signature in kind.signatures)


def is_enough(beginning: bytes) -> bool:
    """Whether so much of a file tells what it is: what begins as JSON does is none of the others."""
    return beginning.startswith((b"{", b"[")) or len(beginning) >= _LOOKED_AT_BYTES


def why_unreadable(beginning: bytes) -> str | None:
    """What a file is that begins so, and what to do; None for what may be read.

    `b"PAR1..."` is "it is a Parquet file, where JSON text or OTLP is expected; write it as JSONL first: ...".
    """
    for kind in _KINDS:
        if beginning.startswith(kind.signatures, kind.place):
            return f"it is {kind.name}, where JSON text or OTLP is expected; {kind.advice}"
    return None
