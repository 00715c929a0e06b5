import os
import signal
import sys
import time
from pathlib import Path

import pytest

from api.local.errors import LocalStackError, ServerFailed
from api.local.files import socket_folder
from api.local.processes import Child, Ending, is_alive, log_tail, session_members, spawn, stop, wait_until_ready
from api.local.watchdog import end_sessions, read_sessions

# Ignores SIGTERM, as does the child it forks.
STUBBORN = "import os, signal, time; signal.signal(15, signal.SIG_IGN); os.fork(); time.sleep(60)"


def run(code: str, folder: Path, grace_seconds: float = 0.2) -> Child:
    command = [sys.executable, "-c", code]
    log = folder / "log"
    return spawn("it", command, log, environment=os.environ, folder=folder, ending=Ending(grace_seconds=grace_seconds))


def stubborn_pair(folder: Path, grace_seconds: float = 0.2) -> Child:
    child = run(STUBBORN, folder, grace_seconds)
    wait_until_ready(child, lambda: len(session_members(child.process.pid)) == 2)
    return child


def test_a_child_that_ends_early_shows_its_log(tmp_path: Path) -> None:
    child = run("import sys; sys.exit('no such teapot')", tmp_path)
    with pytest.raises(ServerFailed, match=r"exit status 1(.|\n)*no such teapot"):
        wait_until_ready(child, lambda: False)


def test_a_child_that_is_never_ready_is_stopped(tmp_path: Path) -> None:
    child = run("import time; time.sleep(60)", tmp_path)
    with pytest.raises(ServerFailed, match="not ready after"):
        wait_until_ready(child, lambda: False, timeout_seconds=0.2)
    assert child.process.returncode == -signal.SIGTERM


def test_our_own_error_ends_the_waiting_at_once(tmp_path: Path) -> None:
    def refuse() -> bool:
        raise LocalStackError("wrong password")

    with pytest.raises(LocalStackError, match="wrong password"):
        wait_until_ready(run("import time; time.sleep(60)", tmp_path), refuse)


def test_stop_leaves_no_descendant(tmp_path: Path) -> None:
    child = stubborn_pair(tmp_path)
    stop([child])
    assert session_members(child.process.pid) == []


def test_stop_shares_one_grace_among_all(tmp_path: Path) -> None:
    children = [stubborn_pair(tmp_path, grace_seconds=1.0) for _ in range(3)]
    began = time.monotonic()
    stop(children)
    assert time.monotonic() - began < 2.9


def test_watchdog_ends_what_was_left_open(tmp_path: Path) -> None:
    child = stubborn_pair(tmp_path)
    pid = child.process.pid
    end_sessions(read_sessions([f"+ {pid} 15\n", "+ 1 15\n", "- 1\n"]), grace_seconds=0.2)
    assert session_members(pid) == []
    child.process.wait()


def test_a_zombie_does_not_live(tmp_path: Path) -> None:
    child = run("pass", tmp_path)
    deadline = time.monotonic() + 60
    while is_alive(child.process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(child.process.pid)  # nobody has waited for it yet
    child.process.wait()


def test_log_tail_starts_where_asked(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("old run\nnew run\n")
    assert log_tail(tmp_path / "log", start=len("old run\n")) == "new run"
    assert log_tail(tmp_path / "missing") == "(no log)"


def test_a_long_path_gets_a_short_private_socket_folder(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    short = socket_folder(folder)
    assert len(str(short)) < 90
    assert short.stat().st_mode & 0o777 == 0o700
    assert socket_folder(folder) == short
    short.rmdir()


def test_a_socket_folder_laid_by_a_link_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / ("y" * 100)
    short = socket_folder(folder)
    short.rmdir()
    short.symlink_to(tmp_path)
    try:
        with pytest.raises(LocalStackError, match="belongs to another user"):
            socket_folder(folder)
    finally:
        short.unlink()
