"""The whole local stack over real servers: up, status, down, up again, and what may go wrong on the way."""

import io
import os
import shutil
import signal
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from dotenv import dotenv_values

from api.local import control
from api.local.errors import AlreadyRunning, NotRunning, PortTaken, ServerFailed
from api.local.health import libpq_url, ping, s3_client
from api.local.ports import pick_free_port
from api.local.processes import is_alive
from api.local.state import Event, hold_lock
from registry.settings import Settings, load_settings

COMMAND = (sys.executable, str(Path(__file__).with_name("fake_stack.py")))
LINUX = sys.platform == "linux"


@pytest.fixture
def home() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="memgen-"))
    path.chmod(0o711)
    yield path
    control.down(settings_of(path))
    shutil.rmtree(path, ignore_errors=True)


def settings_of(home: Path, **overrides: object) -> Settings:
    return load_settings(service_env=False, **{"home": home, "api_port": 0, **overrides})


def up(settings: Settings, *extra: str) -> control.UpResult:
    return control.up(settings, command=(*COMMAND, *extra), timeout_seconds=180)


def leftovers(home: Path) -> list[str]:
    """Processes that name the home in their command, environment or working directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            text = command + (entry / "environ").read_bytes() + os.fsencode((entry / "cwd").readlink())
        except OSError:
            continue  # gone, or a zombie
        if os.fsencode(home) in text:
            found.append(f"{entry.name} {command.replace(bytes(1), b' ').decode()}")
    return found


def wait_for_no_leftovers(home: Path, seconds: float) -> list[str]:
    deadline = time.monotonic() + seconds
    while (left := leftovers(home)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def test_nothing_runs_at_first(home: Path) -> None:
    state = control.status(settings_of(home))
    assert (state["running"], state["phase"], state["processes"]) == (False, "stopped", [])
    assert control.down(settings_of(home)) is False
    with pytest.raises(NotRunning, match="memgen up"):
        control.require_running(settings_of(home))
    assert control.status(settings_of(home / "missing"))["running"] is False
    assert not (home / "missing").exists()


def test_a_vllm_server_that_cannot_be_started_is_missed_before_anything_runs(home: Path) -> None:
    missing = home / "nowhere" / "python"
    with pytest.raises(ServerFailed, match=f"{missing} is missing. `make vllm` makes its environment"):
        up(settings_of(home, engine="vllm", vllm_python=missing))
    assert not (home / "logs" / "postgres.log").exists()


@pytest.mark.skipif(not LINUX, reason="looks for processes in /proc")
def test_data_and_addresses_survive_down_and_up(home: Path) -> None:
    settings = settings_of(home)
    events: list[Event] = []
    first = control.up(settings, command=COMMAND, on_event=events.append, timeout_seconds=180)
    assert not first.already_running
    assert first.notes == ("three rows were moved",)
    assert events[-1] == Event("stack", "ready")
    assert httpx.get(f"{first.api_url}/readyz").status_code == 200
    env = dotenv_values(home / "service.env")
    assert stat.S_IMODE((home / "service.env").stat().st_mode) == 0o600
    assert (home / "prepared").read_text() == env["MEMGEN_API_KEY"]
    write_everywhere(env)

    again = up(settings)
    assert again.already_running
    assert (again.pid, again.api_url, again.urls) == (first.pid, first.api_url, first.urls)
    assert not any("mg_" in url or (env["MEMGEN_DATABASE_URL"] or "") == url for url in again.urls.values())
    state = control.status(settings)
    assert state["running"]
    assert state["phase"] == "ready"
    processes = {each["name"]: each for each in state["processes"]}
    assert list(processes) == ["postgres", "valkey", "seaweed", "api", "worker"]
    assert all(each["state"] == "running" and each["uptime_seconds"] >= 0 for each in processes.values())

    assert control.down(settings) is True
    assert leftovers(home) == []
    assert control.status(settings)["running"] is False
    second = up(settings)
    assert second.pid != first.pid
    assert second.urls == first.urls
    assert dotenv_values(home / "service.env") == env
    assert read_everywhere(env) == (7, b"bytes", True)


def write_everywhere(env: dict[str, str | None]) -> None:
    with psycopg.connect(libpq_url(env["MEMGEN_DATABASE_URL"] or ""), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
    with s3_client(env["MEMGEN_S3_URL"] or "", "us-east-1") as client:
        client.put_object("memgen", "kept", io.BytesIO(b"bytes"), 5)


def read_everywhere(env: dict[str, str | None]) -> tuple[object, bytes, bool]:
    with psycopg.connect(libpq_url(env["MEMGEN_DATABASE_URL"] or "")) as connection:
        row = connection.execute("SELECT value FROM kept").fetchone()
    with s3_client(env["MEMGEN_S3_URL"] or "", "us-east-1") as client:
        response = client.get_object("memgen", "kept")
        data = response.read()
        response.release_conn()
    return (row[0] if row else None), data, ping(env["MEMGEN_BROKER_URL"] or "")


@pytest.mark.skipif(not LINUX, reason="looks for processes in /proc")
def test_a_killed_supervisor_leaves_nothing_and_does_not_hinder_the_next(home: Path) -> None:
    settings = settings_of(home)
    first = up(settings)
    assert len(leftovers(home)) > 6  # the servers, the apps, and the apps' own children
    os.kill(first.pid, signal.SIGKILL)
    while is_alive(first.pid):
        time.sleep(0.01)
    second = up(settings)  # waits for the watchdog
    assert not second.already_running
    assert second.urls == first.urls
    os.kill(second.pid, signal.SIGKILL)
    assert wait_for_no_leftovers(home, 10) == []
    assert control.status(settings)["running"] is False


def test_a_dead_app_and_a_dead_server_come_back(home: Path) -> None:
    settings = settings_of(home)
    result = up(settings)
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{result.api_url}/die")
    os.kill(process(settings, "valkey")["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        pair = [process(settings, "api"), process(settings, "valkey")]
        if all(each["restarts"] == 1 and each["state"] == "running" for each in pair):
            break
        time.sleep(0.1)
    assert [(each["restarts"], each["state"]) for each in pair] == [(1, "running"), (1, "running")]
    assert httpx.get(f"{result.api_url}/readyz").status_code == 200


def process(settings: Settings, name: str) -> dict[str, object]:
    processes: list[dict[str, object]] = control.status(settings)["processes"]
    return next(each for each in processes if each["name"] == name)


@pytest.mark.skipif(not LINUX, reason="looks for processes in /proc")
def test_an_app_that_keeps_dying_stops_everything(home: Path) -> None:
    with pytest.raises(ServerFailed, match=r"3 failures(.|\n)*crash(.|\n)*no such teapot"):
        up(settings_of(home), "crash")
    assert wait_for_no_leftovers(home, 5) == []
    state = control.status(settings_of(home))
    assert (state["running"], state["phase"]) == (False, "failed")
    assert "no such teapot" in str(state["error"])


def test_a_taken_api_port_is_told_at_once(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortTaken, match=f"{port}.*MEMGEN_API_PORT"):
            up(settings_of(home, api_port=port))
    assert not (home / "postgres").exists()


def test_a_configured_server_that_does_not_answer_is_named(home: Path) -> None:
    url = f"postgresql+psycopg://u:hidden@127.0.0.1:{pick_free_port()}/d"
    with pytest.raises(ServerFailed, match="MEMGEN_DATABASE_URL") as caught:
        up(settings_of(home, database_url=url))
    assert "hidden" not in str(caught.value)
    assert not (home / "postgres").exists()


def test_a_supervisor_that_cannot_even_begin_shows_its_log(home: Path) -> None:
    command = (sys.executable, "-c", "import sys; sys.exit('no such teapot')")
    with pytest.raises(ServerFailed, match="no such teapot"):
        control.up(settings_of(home), command=command)


def test_one_supervisor_a_home(home: Path) -> None:
    (home / "run").mkdir()
    with (
        hold_lock(home),
        pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}.*memgen down"),
        hold_lock(home),
    ):
        pass
    with hold_lock(home):
        pass
