"""Artifacts on this machine: fetched from the object store by hash, checked in every byte, dropped when space is short.

    <folder>/<sha256>/        the files of an artifact, whole: it gets its name only when it is
    <folder>/<sha256>.lock    held shared while the files are read, exclusively while they are fetched or dropped; it
                              outlives them, and holds the artifact's key in the object store; of what was never
                              found there is none
    <folder>/fetching-<sha256>, dropped-<sha256>    what is becoming an artifact's folder, or was one

Any process of any server on the machine may fetch, read and drop: the locks are the system's own. A folder that was
dropped comes back the next time that it is needed, from the key that is kept.
"""

import fcntl
import functools
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from memgen.checked_files import check_files
from memgen.errors import ArtifactError
from memgen_vllm.errors import NoSuchArtifact, NotKept, NotServed, StoreDown
from memgen_vllm.names import ArtifactName
from memgen_vllm.settings import PluginSettings
from registry.errors import ObjectNotFound, StoreUnavailable
from registry.object_store import ObjectStore

_FETCHING, _DROPPED = "fetching-", "dropped-"
_MANIFEST = "manifest.json"
_REMEMBERED = 4096
"""Artifacts whose lists of files a process remembers."""
_MOMENTS_FILE = "optimizer.safetensors"
"""`memgen.artifacts.artifact.MOMENTS_FILE`, which serving needs not; that module needs PEFT."""


class ArtifactFolder:
    def __init__(self, settings: PluginSettings) -> None:
        """Raises NotConfigured if the object store's URL is none."""
        self._root, self._max_bytes = settings.folder, settings.max_bytes
        self._root.mkdir(parents=True, exist_ok=True)
        self._store = ObjectStore(settings.s3_url, settings.s3_bucket, settings.s3_region) if settings.s3_url else None

    def here(self, name: ArtifactName) -> Path | None:
        """The artifact's folder, if it is here; it counts as used. Asks no store, and waits for nobody who does."""
        folder = self._root / name.sha256
        if not is_whole(folder):
            return None
        with suppress(FileNotFoundError):
            os.utime(self._lock_of(name.sha256))
        return folder

    def ensure(self, name: ArtifactName) -> Path:
        """The artifact's folder, fetched if it is not here. Raises as `held`, and NotKept."""
        try:
            with self.held(name) as folder:
                return folder
        except OSError as error:
            raise NotKept(f"artifact {name.sha256} cannot be kept in {self._root}: {error}") from error

    @contextmanager
    def held(self, name: ArtifactName) -> Iterator[Path]:
        """The artifact's folder, which stays while it is held.

        Raises:
            NoSuchArtifact: the object store has none of this hash.
            NotServed: its bytes are not the manifest's, or the manifest not the one of its name.
            StoreDown: the object store does not answer.
        """
        folder = self._root / name.sha256
        while True:
            with self._locked(name.sha256, fcntl.LOCK_SH):
                if is_whole(folder):
                    os.utime(self._lock_of(name.sha256))
                    yield folder
                    return
            with self._locked(name.sha256, fcntl.LOCK_EX) as descriptor:
                if not is_whole(folder):
                    self._fetch(name, descriptor)
            # Another process may drop it before it is locked again: then this begins anew.

    def drop_unused(self) -> None:
        """Drop what a process that was killed left in parts, then what was used least recently and nobody holds, until
        the rest fits."""
        for mark in (_FETCHING, _DROPPED):
            for part in self._root.glob(f"{mark}*"):
                with self._unheld(part.name.removeprefix(mark)) as is_free:
                    if is_free:
                        shutil.rmtree(part, ignore_errors=True)
        sizes = {path: _size(path) for path in self._root.iterdir() if path.is_dir() and len(path.name) == 64}
        total = sum(sizes.values())
        for folder in sorted(sizes, key=_last_used):
            if total <= self._max_bytes:
                return
            with self._unheld(folder.name) as is_free:
                if is_free:
                    self._drop(folder)
                    total -= sizes[folder]

    @contextmanager
    def _unheld(self, sha256: str) -> Iterator[bool]:
        """Whether nobody holds an artifact. If so, nobody will while the block lasts."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._locked(sha256, fcntl.LOCK_EX | fcntl.LOCK_NB))
            except BlockingIOError:
                is_free = False
            else:
                is_free = True
            yield is_free

    @contextmanager
    def _locked(self, sha256: str, how: int) -> Iterator[int]:
        """An artifact's lock file, locked; its descriptor. Whoever has it alone and leaves neither artifact nor key
        leaves no file either: any name may be asked for.

        Raises:
            BlockingIOError: another has it, and `how` is not to wait.
        """
        path = self._lock_of(sha256)
        while True:
            with path.open("a+") as file:
                fcntl.flock(file, how)
                if not _is_file_of(file.fileno(), path):  # who had it before removed it
                    continue
                try:
                    yield file.fileno()
                finally:
                    is_alone = how & fcntl.LOCK_EX
                    if is_alone and not os.fstat(file.fileno()).st_size and not (self._root / sha256).is_dir():
                        path.unlink(missing_ok=True)
                return

    def _drop(self, folder: Path) -> None:
        # Renamed first: a folder that is being removed must not look like a whole one.
        gone = self._root / f"{_DROPPED}{folder.name}"
        shutil.rmtree(gone, ignore_errors=True)
        with suppress(FileNotFoundError):  # another process has just dropped it
            folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _fetch(self, name: ArtifactName, lock: int) -> None:
        """Bring an artifact here. The caller holds its lock exclusively."""
        if self._store is None:
            raise NoSuchArtifact(
                f"artifact {name.sha256} is not in {self._root}, and MEMGEN_S3_URL names no store to fetch it from"
            )
        staging = self._root / f"{_FETCHING}{name.sha256}"
        shutil.rmtree(staging, ignore_errors=True)  # of a process that was killed
        try:
            staging.mkdir()
            key = name.key or _kept_key(self._store, lock) or _find(self._store, name.sha256)
            self._store.get_folder(key, staging, without=(_MOMENTS_FILE,))
            check_files(staging, name.sha256, may_lack=(_MOMENTS_FILE,))
            _remove_unlisted(staging)
            os.ftruncate(lock, 0)
            os.write(lock, key.encode())
            self._drop(self._root / name.sha256)  # if something is left of it
            staging.rename(self._root / name.sha256)
            self.drop_unused()
        except ObjectNotFound as error:
            raise NoSuchArtifact(f"artifact {name.sha256}: {error}") from error
        except StoreUnavailable as error:
            raise StoreDown(str(error)) from error
        except ArtifactError as error:
            raise NotServed(f"artifact {name.sha256} is corrupt in the object store: {error}") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _lock_of(self, sha256: str) -> Path:
        return self._root / f"{sha256}.lock"


def is_whole(folder: Path) -> bool:
    """Whether an artifact's folder has all of its files: what tidies a disk up may leave folders behind."""
    try:
        return all(path.is_file() for path in _files_of(folder))
    except (OSError, ValueError):
        return False


@functools.lru_cache(_REMEMBERED)
def _files_of(folder: Path) -> tuple[Path, ...]:
    """As its manifest lists them, which is the same for as long as the folder has its name.

    Raises:
        OSError, ValueError: there is no manifest.
    """
    listed = json.loads((folder / _MANIFEST).read_text())
    return tuple(folder / name for name in (_MANIFEST, *listed) if name != _MOMENTS_FILE)


def _is_file_of(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _kept_key(store: ObjectStore, lock: int) -> str | None:
    """The key that an artifact had when it was fetched last, if it still has it."""
    key = os.pread(lock, 1000, 0).decode()
    return key if key and _has(store, key) else None


def _find(store: ObjectStore, sha256: str) -> str:
    """The key of an artifact of which only the hash is known: the first project that has it."""
    for project in store.folders("projects/"):
        if _has(store, key := f"{project}artifacts/{sha256}"):
            return key
    raise ObjectNotFound(f"no project of bucket {store.bucket!r} has it")


def _has(store: ObjectStore, key: str) -> bool:
    with suppress(ObjectNotFound):
        store.stat(f"{key}/{_MANIFEST}")
        return True
    return False


def _remove_unlisted(folder: Path) -> None:
    """Remove what the manifest does not list, and so no hash covers."""
    listed = json.loads((folder / _MANIFEST).read_text()).keys() | {_MANIFEST}
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        if path.relative_to(folder).as_posix() not in listed:
            path.unlink()


def _last_used(folder: Path) -> float:
    try:
        return folder.with_name(f"{folder.name}.lock").stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _size(folder: Path) -> int:
    """Bytes of its files; 0 if another process drops it meanwhile."""
    try:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    except FileNotFoundError:
        return 0
