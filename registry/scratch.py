"""Scratch folders: where processes keep files while they work. Nothing in them outlives its process by much.

Each process has one folder of its own, and a lock file beside it that is locked while the process lives. However that
ends, the kernel lets go of the lock, so whoever can take it knows that the folder is nobody's any more.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
import threading
from pathlib import Path

_LOCK = ".lock"


class Scratch:
    """The folder of this process, made when it is first asked for. Made after fork: a lock is shared with children."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._making = threading.Lock()
        self._lock: tuple[int, Path] | None = None

    @property
    def folder(self) -> Path:
        with self._making:
            if self._lock is None:
                self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
                sweep(self._root)
                self._lock = new_lock(self._root)
            folder = folder_of(self._lock[1])
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return folder

    def close(self) -> None:
        """Remove the folder, if it was made."""
        with self._making:
            if self._lock is not None:
                descriptor, lock = self._lock
                self._lock = None
                _remove(lock)
                os.close(descriptor)


def sweep(root: Path, *, dry_run: bool = False) -> list[Path]:
    """Remove the folders of processes that are dead, or with `dry_run` only find them. Returns them."""
    swept = []
    locks = sorted(root.glob(f"*{_LOCK}")) if root.is_dir() else []
    for lock in locks:
        with contextlib.suppress(OSError):  # another process sweeps it, or lives
            descriptor = os.open(lock, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not dry_run:
                    _remove(lock)
                swept.append(folder_of(lock))
            finally:
                os.close(descriptor)
    return swept


def new_lock(root: Path) -> tuple[int, Path]:
    """(descriptor, path) of a new lock file that is locked."""
    while True:
        descriptor, name = tempfile.mkstemp(prefix=f"{os.getpid()}-", suffix=_LOCK, dir=root)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Whoever swept between the two calls took it for a dead process's.
        if os.fstat(descriptor).st_nlink:
            return descriptor, Path(name)
        os.close(descriptor)


def folder_of(lock: Path) -> Path:
    return lock.with_name(lock.name.removesuffix(_LOCK))


def _remove(lock: Path) -> None:
    """Remove a lock's folder, however deep something dug in it, then the lock."""
    folder = folder_of(lock)
    if folder.is_dir():
        left = [folder]
        while left:  # every folder is lifted to the top: some depth has no path at all
            for entry in list(left.pop().iterdir()):
                if entry.is_dir() and not entry.is_symlink():
                    entry.chmod(0o700)
                    left.append(entry.rename(folder / secrets.token_hex(16)))
        shutil.rmtree(folder)
    lock.unlink()
