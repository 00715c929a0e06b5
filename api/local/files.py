"""Files and folders of the local stack that only their owner may read. Knows no server and no format.

Private files carry mode 0600 from their first byte and are replaced in one step, so that neither another
user nor a crash ever sees a half-protected or half-written one.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
import time
from pathlib import Path

import structlog

from api.local.errors import LocalStackError

# sockaddr_un holds 108 bytes on Linux and 104 on macOS, the final zero included.
LONGEST_SOCKET_PATH = 100

log = structlog.get_logger("api.local")


def write_private(path: Path, text: str) -> None:
    """Replaces `path` by a file of mode 0600 in one step."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def set_aside(path: Path, why: str) -> Path | None:
    """Renames a damaged file or folder, so that it can be made anew and still be looked at, and logs that.

    Returns its new path; None where there was nothing.
    """
    new = path.with_name(f"{path.name}.damaged-{time.time_ns() // 1_000_000}")
    try:
        path.rename(new)
    except FileNotFoundError:
        return None
    log.warning("damaged local state was moved aside and is made anew", path=str(path), moved_to=str(new), why=why)
    return new


def make_private_folder(path: Path) -> Path:
    """The folder, with mode 0700, made where it is missing."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def make_home(home: Path) -> Path:
    """The stack's folder as an absolute path, with its `logs` and `run`.

    Mode 0711, not 0700: PostgreSQL refuses root, and its stand-in account must get through to its data. Everything
    else inside has a mode of its own.
    """
    home = home.expanduser().absolute()
    try:
        if not home.exists():
            home.mkdir(mode=0o711, parents=True, exist_ok=True)  # another `up` may be quicker
        make_private_folder(home / "logs")
        make_private_folder(home / "run")
    except OSError as error:
        raise LocalStackError(f"Cannot use {home} as home ({error}). Set MEMGEN_HOME to a folder you own.") from error
    return home


def socket_folder(folder: Path, longest_name: str = "valkey.sock") -> Path:
    """`folder` where its sockets' paths stay short enough, else a private one under the system's temporary folder.

    The short one's name derives from `folder`, so every start finds the same.
    """
    if len(os.fsencode(folder / longest_name)) <= LONGEST_SOCKET_PATH:
        return make_private_folder(folder)
    digest = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:12]
    for root in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108  # owner and mode are checked below
        short = root / f"memgen-{os.geteuid()}-{digest}"
        if len(os.fsencode(short / longest_name)) <= LONGEST_SOCKET_PATH:
            return _make_own_folder(short)
    raise LocalStackError(f"No folder short enough for a socket of {folder}. Set MEMGEN_HOME to a shorter path.")


def _make_own_folder(path: Path) -> Path:
    # The name can be foretold and the parent is shared: another user may have put something there first.
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise LocalStackError(f"{path} belongs to another user; expected a folder of uid {os.geteuid()}. Remove it.")
    path.chmod(0o700)
    return path
