"""The spool: files in which calls wait between their answer and the database. Knows no row.

A call is one line, written with write(2) before the last byte of its answer is sent. So a process that is killed loses
none that it answered: the kernel has the line, and the next process of this machine that looks takes the files over. A
machine that loses its power, or its disk, loses those that waited: nothing is forced to the disk.

Each process has a folder of numbered segments, and a lock file beside it that is locked while the process lives. What
was moved into the database is removed, segment by segment; a line that is moved twice is recorded once.
"""

import contextlib
import fcntl
import os
import shutil
import threading
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from registry.scratch import folder_of, new_lock

SEGMENT_BYTES = 4_000_000
_SUFFIX = ".jsonl"
_LOCK = ".lock"


class SpoolFull(Exception):
    """As much waits as may."""


@dataclass(frozen=True)
class LeftSpool:
    """What a dead process has left."""

    name: str
    segments: list[Path]
    """In order."""


@dataclass(frozen=True)
class SpoolBatch:
    """Whole lines of one segment, in order."""

    segment: int
    lines: tuple[bytes, ...]
    end: int
    """Bytes of the segment up to the last of them."""


class Spool:
    """The spool of this process. Any thread may append; one moves."""

    def __init__(self, root: Path, *, most_bytes: int) -> None:
        self._root, self._most_bytes = root, most_bytes
        self._writing = threading.Lock()
        self._lock: tuple[int, Path] | None = None
        self._descriptor: int | None = None
        self._segment = 0
        self._written = 0
        """Bytes of the segment that is written to."""
        self._lines: Counter[int] = Counter()
        self._bytes: Counter[int] = Counter()
        """How much waits in each segment."""
        self._reading = 1
        self._moved = 0
        """Bytes of the segment that is read that were moved."""
        self._has_passed_over = False

    @property
    def waiting_bytes(self) -> int:
        return self._bytes.total()

    def open(self) -> str:
        """The spool's name, which is told from then on from one that a dead process has left.

        Raises:
            OSError: the disk does not take it.
        """
        with self._writing:
            return self._locked().stem

    def append(self, line: bytes) -> None:
        """Write a line, which ends with a newline and has no other. It is with the kernel when this returns.

        Raises:
            SpoolFull: too much waits.
            OSError: the disk does not take it.
        """
        with self._writing:
            if self.waiting_bytes + len(line) > self._most_bytes:
                raise SpoolFull(f"{self.waiting_bytes} bytes wait")
            if self._descriptor is None or self._written >= SEGMENT_BYTES:
                self._open_next()
            assert self._descriptor is not None
            try:
                _write_whole(self._descriptor, line)
            except OSError:
                with contextlib.suppress(OSError):  # half a line must not spoil the next
                    os.ftruncate(self._descriptor, self._written)
                raise
            self._written += len(line)
            self._lines[self._segment] += 1
            self._bytes[self._segment] += len(line)

    def next_batch(self, most_bytes: int = 1_000_000) -> SpoolBatch | None:
        """The next lines to move; None if none waits.

        Raises:
            OSError: the disk does not give back what was written.
        """
        while True:
            with self._writing:
                if self._lock is None or self._reading > self._segment:
                    return None
                waits, is_last = self._lines[self._reading], self._reading == self._segment
            if waits:
                batch = _read(self._path(self._reading), self._reading, self._moved, most_bytes)
                if batch is None:
                    raise OSError(f"{self._path(self._reading)} is shorter than what was written to it")
                return batch
            if is_last:
                return None
            with contextlib.suppress(OSError):  # a full segment, moved to its end
                self._path(self._reading).unlink(missing_ok=True)
            with self._writing:
                self._go_on()

    def pass_over(self) -> int:
        """Go on behind a segment that can't be read. It stays where it is, for a later process that can. Returns how
        many lines wait in it."""
        with self._writing:
            if self._reading == self._segment:
                self._written = SEGMENT_BYTES  # the next line goes into another
            lines, self._has_passed_over = self._lines[self._reading], True
            self._go_on()
            return lines

    def _go_on(self) -> None:
        del self._lines[self._reading], self._bytes[self._reading]
        self._reading, self._moved = self._reading + 1, 0

    def moved(self, batch: SpoolBatch) -> None:
        """Its lines stand in the database."""
        with self._writing:
            self._lines[batch.segment] -= len(batch.lines)
            self._bytes[batch.segment] -= batch.end - self._moved
            self._moved = batch.end
            if self._reading == self._segment and self._moved == self._written and self._descriptor is not None:
                with contextlib.suppress(OSError):  # a disk that takes nothing more: its lines are moved all the same
                    os.ftruncate(self._descriptor, 0)
                    self._written = self._moved = 0

    def close(self) -> str | None:
        """Let go of the files. What waits, or was passed over, stays for the next process. The spool's name is returned
        if nothing waits."""
        with self._writing:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
            if self._lock is not None:
                descriptor, lock = self._lock
                self._lock = None
                is_empty = self.waiting_bytes == 0
                if is_empty and not self._has_passed_over:
                    shutil.rmtree(folder_of(lock), ignore_errors=True)
                    lock.unlink(missing_ok=True)
                os.close(descriptor)
                return lock.stem if is_empty else None
        return None

    def _locked(self) -> Path:
        """The lock file of this process."""
        if self._lock is None:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = new_lock(self._root)
        return self._lock[1]

    def _open_next(self) -> None:
        folder_of(self._locked()).mkdir(exist_ok=True, mode=0o700)
        descriptor = os.open(self._path(self._segment + 1), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self._segment, self._written = descriptor, self._segment + 1, 0

    def _path(self, segment: int) -> Path:
        assert self._lock is not None
        return folder_of(self._lock[1]) / f"{segment:08d}{_SUFFIX}"


@contextlib.contextmanager
def abandoned(root: Path, *, without: Collection[str] = ()) -> Iterator[LeftSpool | None]:
    """What one dead process has left; this process has its lock meanwhile. None if there is none.

    Whoever removed all of its segments has taken it over: what is left then goes, too.

    Args:
        without: names of spools that are left where they are.
    """
    for lock in sorted(root.glob(f"*{_LOCK}")) if root.is_dir() else []:
        if lock.stem in without:
            continue
        try:
            descriptor = os.open(lock, os.O_RDWR)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # it lives, or another process has it
            os.close(descriptor)
            continue
        try:
            yield LeftSpool(lock.stem, _segments(lock))
            if not _segments(lock):
                shutil.rmtree(folder_of(lock), ignore_errors=True)
                lock.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
        return
    yield None


def read_segment(path: Path, most_bytes: int = 1_000_000) -> Iterator[tuple[bytes, ...]]:
    """The whole lines of a segment, some at a time. Half a line at its end was never answered for."""
    moved = 0
    while (batch := _read(path, 0, moved, most_bytes)) is not None:
        yield batch.lines
        moved = batch.end


def waiting_files(root: Path) -> int:
    """Segments of all processes that are not empty."""
    return sum(path.stat().st_size > 0 for path in root.glob(f"*/*{_SUFFIX}")) if root.is_dir() else 0


def _segments(lock: Path) -> list[Path]:
    return sorted(folder_of(lock).glob(f"*{_SUFFIX}"))


def _read(path: Path, segment: int, start: int, most_bytes: int) -> SpoolBatch | None:
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(most_bytes)
        if data and b"\n" not in data:  # one long line
            data += file.readline()
    whole = data.rfind(b"\n") + 1
    if not whole:
        return None
    return SpoolBatch(segment, tuple(data[:whole].split(b"\n")[:-1]), start + whole)


def _write_whole(descriptor: int, line: bytes) -> None:
    left = memoryview(line)
    while left:
        left = left[os.write(descriptor, left) :]
