"""A file of JSON values by key, to which several processes append at once and which survives their death.

The file is a row of gzip members, each of one or more lines `{"key": ..., "value": ...}`; `zcat` shows it. Of the lines
of one key the last holds, and `null` means that there is none. An append is one member, written under an exclusive
lock of the file and synced to disk before the lock is released. What a process left half written is a torn last member:
readers pass over it and say so, the next append cuts it off.

Knows nothing of plans, systems or scores. Locks are `flock`s: all processes must be on one machine. Two branches that
both append conflict in git; `cat ours theirs` is a file that holds what both have, for members may follow each other.
"""

import fcntl
import gzip
import json
import logging
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LOG = logging.getLogger(__name__)
_MAGIC = b"\x1f\x8b\x08"
_CHUNK = 1 << 14
_Stamp = tuple[int, int, int, int]


class DamagedPack(RuntimeError):
    """Something can't be read, and it is more than what one append may leave half written."""


class Pack:
    """One file; it need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[str, bytes] = {}
        self._end = 0
        self._members = 0
        self._stamp: _Stamp | None = None

    def get(self, key: str) -> Any | None:
        """A fresh copy of the key's value, or None."""
        self._refresh()
        return self._value(key)

    def __iter__(self) -> Iterator[str]:
        """The keys that have a value, in the order in which they came."""
        self._refresh()
        return iter(list(self._lines))

    def put(self, key: str, value: Any) -> None:
        """Append; None removes the key."""
        self.update(key, lambda _: value)

    def update(self, key: str, change: Callable[[Any | None], Any]) -> None:
        """Append what `change` makes of the key's value, which nobody else changes meanwhile; equal ones are not
        appended again."""
        with self._locked(fcntl.LOCK_EX) as file:
            self._read(file)
            known = self._value(key)
            value = change(known)
            if value == known:
                return
            line = _line(key, value)
            _append(file, self._end, gzip.compress(line, mtime=0))
            if self._members == 0:
                _sync_folder(self.path.parent)
            self._learn(line)
            self._members += 1
            self._end = os.fstat(file).st_size
            self._stamp = _stamp(os.fstat(file))

    def compact(self) -> None:
        """Rewrite the file as one member of the lines that hold, in a new file that takes the place of the old."""
        with self._locked(fcntl.LOCK_EX) as file:
            self._read(file)
            if self._members < 2 and self._end == os.fstat(file).st_size:
                return
            handle, staging = tempfile.mkstemp(dir=self.path.parent, prefix=".compacting-")
            try:
                os.fchmod(handle, 0o644)
                _write(handle, gzip.compress(b"".join(self._lines.values()), mtime=0))
                os.fsync(handle)
                Path(staging).replace(self.path)
            finally:
                os.close(handle)
                Path(staging).unlink(missing_ok=True)
            _sync_folder(self.path.parent)

    def _value(self, key: str) -> Any | None:
        line = self._lines.get(key)
        return None if line is None else json.loads(line)["value"]

    def _refresh(self) -> None:
        """Read the file again if anyone changed it."""
        try:
            unchanged = _stamp(self.path.stat()) == self._stamp
        except FileNotFoundError:
            self._lines, self._end, self._members, self._stamp = {}, 0, 0, None
            return
        if not unchanged:
            with self._locked(fcntl.LOCK_SH) as file:
                self._read(file)

    def _read(self, file: int) -> None:
        stamp = _stamp(os.fstat(file))
        if stamp == self._stamp:
            return
        data = os.pread(file, os.fstat(file).st_size, 0)
        contents, self._end = _members(data, self.path)
        self._lines, self._members, self._stamp = {}, len(contents), stamp
        for content in contents:
            for line in content.split(b"\n"):
                if line:
                    self._learn(line + b"\n")
        if self._end < len(data):
            _LOG.warning(
                "%s: the last %d bytes are no whole member; a process died while it appended. What it had finished "
                "before is kept, the next append cuts those bytes off, and that piece of work is done again",
                self.path,
                len(data) - self._end,
            )

    def _learn(self, line: bytes) -> None:
        record = json.loads(line)
        if record["value"] is None:
            self._lines.pop(record["key"], None)
        else:
            self._lines[record["key"]] = line

    @contextmanager
    def _locked(self, how: int) -> Iterator[int]:
        """The open file under a lock; opened again as long as compaction puts another in its place."""
        flags = os.O_RDONLY
        if how == fcntl.LOCK_EX:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT
        while True:
            file = os.open(self.path, flags, 0o644)
            try:
                fcntl.flock(file, how)
                if _is_at(file, self.path):
                    yield file
                    return
            finally:
                os.close(file)


def _line(key: str, value: Any) -> bytes:
    return json.dumps({"key": key, "value": value}).encode() + b"\n"


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _append(file: int, end: int, member: bytes) -> None:
    """Write `member` at `end`, in place of whatever stands behind it."""
    os.ftruncate(file, end)
    os.lseek(file, end, os.SEEK_SET)
    try:
        _write(file, member)
    except OSError:
        os.ftruncate(file, end)
        raise
    os.fsync(file)


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _members(data: bytes, path: Path) -> tuple[list[bytes], int]:
    """(contents of the whole members, the byte behind the last of them).

    Raises:
        DamagedPack: what follows them is not only the rest of one torn append.
    """
    contents, end = [], 0
    while end < len(data) and (found := _member(data, end)) is not None:
        contents.append(found[0])
        end = found[1]
    at = data.find(_MAGIC, end + 1)
    while end < len(data) and at >= 0:
        if _member(data, at) is not None:
            raise DamagedPack(
                f"{path} can't be read at byte {end}, but again from byte {at}; expected whole gzip members. Take the "
                "file from git, or cut those bytes out"
            )
        at = data.find(_MAGIC, at + 1)
    if end < len(data) and not _is_torn(data[end:]):
        raise DamagedPack(
            f"{path} can't be read from byte {end} on, and that is more than one append may leave half written. Take "
            "the file from git; nothing was cut off"
        )
    return contents, end


def _is_torn(rest: bytes) -> bool:
    """Whether it is what a killed append or a lost power supply leaves: zeros, or the beginning of one line's member.

    What stands in a compacted file, many lines in one member, is never taken for it.
    """
    begun = rest.rstrip(b"\0")
    if not begun.startswith(_MAGIC[: len(begun)]):
        return False
    unpacker = zlib.decompressobj(wbits=31)
    try:
        return unpacker.decompress(begun).count(b"\n") <= 1 and not unpacker.unused_data
    except zlib.error:
        return False


def _member(data: bytes, start: int) -> tuple[bytes, int] | None:
    """(content, the byte behind it) of the member at `start`; None if it is not whole."""
    unpacker, parts, at = zlib.decompressobj(wbits=31), [], start
    try:
        while not unpacker.eof and at < len(data):
            parts.append(unpacker.decompress(data[at : at + _CHUNK]))
            at = min(at + _CHUNK, len(data))
    except zlib.error:
        return None
    return (b"".join(parts), at - len(unpacker.unused_data)) if unpacker.eof else None
