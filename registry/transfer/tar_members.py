"""The members of a tar that somebody sent: plain files alone, each as long as its bytes in the tar.

Python's own reader believes what a header says. A sparse member of ten kilobytes reads as gigabytes of zeros, and an
extended header is held in memory whole, however long it claims to be. So the blocks are walked here, and whatever is
not a plain file, or needs more than a name from an extended header, is refused before a byte of it is read.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from registry.errors import InvalidArchive
from registry.json_text import show

MAX_MEMBERS = 20_000
MAX_NAME_BYTES = 1024
MAX_NAME_PARTS = 8
"""Most folders of a name, with the file itself; exports have four. Each is made, and kept in mind, for each member."""
MAX_EXTENDED_BYTES = 65_536
"""Longest extended header; it holds a name of at most `MAX_NAME_BYTES`, and times and owners that nobody reads."""

_BLOCK = tarfile.BLOCKSIZE
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"PK\x03\x04": "zip",
}
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.DIRTYPE: "a folder",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


@dataclass(frozen=True)
class TarMember:
    name: str
    offset: int
    """Where its bytes begin in the tar."""
    size: int
    """Number of its bytes, all of which are there."""


def read_members(file: BinaryIO, path: Path) -> Iterator[TarMember]:
    """The members in order; `file` is `path`, opened for reading, and may be moved about between two of them.

    Raises:
        InvalidArchive: no tar, one cut short, a member that is no plain file, or headers beyond the limits.
    """
    length = path.stat().st_size
    _refuse_compressed(file)
    name: str | None = None
    at = found = 0
    while (header := _header(file, at)) is not None:
        found += 1
        if found > MAX_MEMBERS:
            raise InvalidArchive(f"the archive has more than {MAX_MEMBERS} members; expected the tar of an export")
        start, size = at + _BLOCK, header.size
        if size < 0 or start + size > length:
            raise InvalidArchive(
                f"not an archive of a version: {show(header.name)} is {size} bytes long by its header, and "
                f"{max(length - start, 0)} are left of the file; expected the whole tar of an export"
            )
        if header.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.SOLARIS_XHDTYPE):
            data = _extended(file, start, size)
            is_name = header.type == tarfile.GNUTYPE_LONGNAME
            named = data.rstrip(b"\0").decode("utf-8", "surrogateescape") if is_name else _pax_name(data)
            if header.type != tarfile.XGLTYPE:
                name = named or name
        elif header.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            yield TarMember(checked_name(name or header.name), start, size)
            name = None
        else:
            kind = _KINDS.get(header.type, f"a member of type {header.type!r}")
            raise InvalidArchive(f"the archive has {show(name or header.name)}, {kind}; expected plain files alone")
        at = start + -(-size // _BLOCK) * _BLOCK
    if not found:
        raise InvalidArchive("not an archive of a version: it has no member; expected the tar of an export")


def _refuse_compressed(file: BinaryIO) -> None:
    file.seek(0)
    start = file.read(6)
    for magic, kind in _COMPRESSED.items():
        if start.startswith(magic):
            raise InvalidArchive(f"not an archive of a version: it is compressed ({kind}); send the tar itself")


def _header(file: BinaryIO, at: int) -> tarfile.TarInfo | None:
    """The header at an offset; None at the archive's end."""
    file.seek(at)
    block = file.read(_BLOCK)
    if not block.strip(b"\0"):  # also without the zeros that should end it
        return None
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise InvalidArchive(f"not an archive of a version: {error}; expected the tar of an export") from error


def _extended(file: BinaryIO, start: int, size: int) -> bytes:
    if size > MAX_EXTENDED_BYTES:
        raise InvalidArchive(
            f"the archive has an extended header of {size} bytes; expected at most {MAX_EXTENDED_BYTES}"
        )
    file.seek(start)
    return file.read(size)


def _pax_name(data: bytes) -> str | None:
    """The name in the records `<length> <key>=<value>\\n`; None if none has it. Raises InvalidArchive."""
    name, at = None, 0
    while at < len(data.rstrip(b"\0")):
        length_text, _, _ = data[at : at + 10].partition(b" ")
        length = int(length_text) if length_text.isdigit() else 0
        record = data[at : at + length]
        key, equals, value = record[len(length_text) + 1 : -1].partition(b"=")
        if not equals or len(record) != length or record[-1:] != b"\n":
            raise InvalidArchive("not an archive of a version: an extended header is damaged; send it as exported")
        if key in (b"size", b"linkpath", b"hdrcharset") or key.startswith(b"GNU.sparse"):
            raise InvalidArchive(
                f"the archive has an extended header with {show(key.decode('utf-8', 'backslashreplace'))}; expected "
                "plain files, each as long as it is in the tar"
            )
        if key == b"path":
            name = value.decode("utf-8", "surrogateescape")
        at += length
    return name


def checked_name(name: str) -> str:
    """The name. Raises InvalidArchive if it is longer or deeper than those of exports."""
    parts = name.encode("utf-8", "surrogateescape").split(b"/")
    if sum(map(len, parts)) + len(parts) > MAX_NAME_BYTES or max(map(len, parts)) > 255:
        raise InvalidArchive(f"the archive has {show(name)}, a name that is too long; expected the files of an export")
    if len(parts) > MAX_NAME_PARTS:
        raise InvalidArchive(
            f"the archive has {show(name)}, a file within {len(parts) - 1} folders; expected the files of an export, "
            f"within {MAX_NAME_PARTS - 1} at most"
        )
    return name
