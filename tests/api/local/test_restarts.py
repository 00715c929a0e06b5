"""What one process of the stack, its files or its disk may do, and what the others go on doing meanwhile."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.local import control
from api.local.errors import LocalStackError
from api.local.processes import is_alive
from api.local.restarts import RestartPolicy
from api.local.secrets import load_or_create_secrets
from registry.settings import Settings
from tests.api.cli.invoking import succeed
from tests.api.local.test_stack import COMMAND, home, process, settings_of, up

__all__ = ["home"]


def until(what: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def answers(result: control.UpResult) -> bool:
    return httpx.get(f"{result.api_url}/readyz").status_code == 200


def kill(home: Path, name: str) -> int:
    pid = process(settings_of(home), name)["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    return pid


def test_the_pause_doubles_up_to_the_longest() -> None:
    policy = RestartPolicy()
    assert [policy.pause(failures) for failures in (1, 2, 3, 7, 8, 100_000)] == [0.5, 1, 2, 32, 60, 60]


def test_a_helper_that_keeps_dying_takes_nothing_with_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(home)
    result = up(settings, "limp")
    assert "no such teapot" in result.down["limp"]
    before = int(process(settings, "limp")["failures"])  # type: ignore[call-overload]  # JSON is untyped
    until(lambda: int(process(settings, "limp")["failures"]) > before + 3)  # type: ignore[call-overload]  # as above
    limp = process(settings, "limp")
    assert limp["down_since"]
    assert "no such teapot" in str(limp["reason"])
    assert str(home / "logs" / "limp.log") in str(limp["reason"])
    assert answers(result)
    assert process(settings, "worker")["restarts"] == 0
    assert control.status(settings)["phase"] == "ready"
    monkeypatch.setenv("MEMGEN_HOME", str(home))
    until(lambda: "tried again at" in (shown := succeed("status").out) and "no such teapot" in shown)
    assert up(settings).down.keys() == {"limp"}

    (home / "mended").touch()
    until(lambda: process(settings, "limp")["state"] == "running")
    assert process(settings, "limp")["down_since"] is None
    until(lambda: process(settings, "limp")["failures"] == 0)  # it ran well for long enough to begin anew
    assert process(settings, "limp")["reason"] is None
    assert up(settings).down == {}


def test_a_server_whose_port_is_taken_is_tried_until_it_is_free(home: Path) -> None:
    settings = settings_of(home)
    result = up(settings)
    port = process(settings, "postgres")["port"]
    assert isinstance(port, int)
    squatter = socket.socket()
    squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    supervisor = result.pid
    os.kill(supervisor, signal.SIGSTOP)  # so that the port is ours before it looks
    try:
        dead = kill(home, "postgres")
        until(lambda: not is_alive(dead))
        until(lambda: _bound(squatter, port))
    finally:
        os.kill(supervisor, signal.SIGCONT)
    with squatter:
        until(lambda: int(process(settings, "postgres")["failures"]) >= 3)  # type: ignore[call-overload]  # JSON
        assert f"Port {port}" in str(process(settings, "postgres")["reason"])
        assert answers(result)
        assert process(settings, "valkey")["restarts"] == 0
    until(lambda: process(settings, "postgres")["state"] == "running")
    assert process(settings, "postgres")["port"] == port


def _bound(squatter: socket.socket, port: int) -> bool:
    try:
        squatter.bind(("127.0.0.1", port))
    except OSError:
        return False
    squatter.listen()
    return True


def test_a_state_that_cannot_be_written_stops_nothing(home: Path) -> None:
    settings = settings_of(home)
    result = up(settings)
    obstacle = home / "run" / f".state.json.{result.pid}"
    obstacle.mkdir()
    (home / "run" / "state.json").write_bytes(b"\xff{")
    assert control.status(settings)["running"] is True
    httpx.get(f"{result.api_url}/readyz")
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{result.api_url}/die")
    until(lambda: _answers_again(result))
    assert is_alive(result.pid)
    obstacle.rmdir()
    until(lambda: bool(control.status(settings)["processes"]))
    assert process(settings, "api")["restarts"] == 1
    (home / "run" / "lock").write_bytes(b"")  # damaged, but still locked
    assert control.down(settings) is True
    assert not is_alive(result.pid)


def _answers_again(result: control.UpResult) -> bool:
    try:
        return answers(result)
    except httpx.HTTPError:
        return False


def test_several_who_start_the_same_home_at_once_all_get_it(home: Path) -> None:
    """As processes of their own, on a home that is not there yet."""
    place = home / "new"
    code = (
        "import sys; from pathlib import Path; from api.local import control;"
        "from registry.settings import load_settings;"
        "settings = load_settings(service_env=False, home=Path(sys.argv[1]), api_port=0);"
        "print(control.up(settings, command=sys.argv[2:], timeout_seconds=180).pid)"
    )
    command = [sys.executable, "-c", code, str(place), *COMMAND]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        ended = [each.communicate(timeout=240) for each in started]
        assert [each.returncode for each in started] == [0, 0, 0], ended
        assert len({out for out, _ in ended}) == 1
    finally:
        control.down(settings_of(place))


STATE = (
    *("api.ports.json", "postgres.ports.json", "seaweed/ports.json", "seaweed/credentials.json", "service.env"),
    *("run/state.json", "run/lock", "secrets.json", "seaweed/data/vol_dir.uuid", "seaweed/data/m*/snapshot/*"),
    *("valkey/appendonlydir/*.manifest", "valkey/appendonlydir/*.rdb", "valkey/appendonlydir/*.incr.aof"),
    *("postgres/data/postmaster.pid", "logs/*.log"),
)


@pytest.mark.parametrize("text", [b"", b"\xffgarbage{[", b'{"the API": 99999999, "s3.port": null, "postgres": true}'])
def test_damaged_local_state_is_made_anew(home: Path, text: bytes) -> None:
    settings = settings_of(home)
    up(settings)
    secrets = load_or_create_secrets(home)
    control.down(settings)
    (home / "postgres" / "data" / "postmaster.pid").touch()  # as a crash leaves it
    kept = (home / "service.env").read_bytes()
    for pattern in STATE:
        found = [path for path in home.glob(pattern) if ".damaged-" not in path.name]
        assert found, pattern
        for path in found:
            path.write_bytes(text)
    (home / "service.env").write_bytes(kept)  # secrets come from it; alone it is damaged below
    result = up(settings)
    assert answers(result)
    assert load_or_create_secrets(home) == secrets
    assert list(home.rglob("secrets.json.damaged-*"))
    control.down(settings)
    (home / "service.env").write_bytes(text)
    assert answers(up(settings))


def test_every_single_damaged_broker_file_is_survived(home: Path) -> None:
    settings = settings_of(home)
    result = up(settings)
    for pattern in ("*.manifest", "*.rdb", "*.incr.aof"):
        [path] = (home / "valkey" / "appendonlydir").glob(pattern)
        before = int(process(settings, "valkey")["restarts"])  # type: ignore[call-overload]  # JSON is untyped
        path.write_bytes(b"\xffgarbage\r\n" * 9)
        kill(home, "valkey")
        until(partial(_runs_anew, settings, "valkey", before))
    assert len(list((home / "valkey").glob("appendonlydir.damaged-*"))) == 3
    assert answers(result)


def _runs_anew(settings: Settings, name: str, restarts: int) -> bool:
    found = process(settings, name)
    return found["restarts"] != restarts and found["state"] == "running"


def test_damaged_secrets_without_the_urls_are_refused(home: Path) -> None:
    load_or_create_secrets(home)
    (home / "secrets.json").write_bytes(b"")
    (home / "service.env").write_text("MEMGEN_DATABASE_URL='postgresql+psycopg://u:p@db.example/d'\n")
    with pytest.raises(LocalStackError, match="secrets.json is damaged"):
        up(settings_of(home))
    assert (home / "secrets.json").read_bytes() == b""


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[None]:
    folder.mkdir()
    mount = shutil.which("mount")
    options = ("-t", "tmpfs", "-o", f"size={mebibytes}m,mode=711", "none", str(folder))
    if mount is None or subprocess.run([mount, *options], capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_stops_nothing_that_can_go_on(home: Path) -> None:
    place = home / "disk"
    with small_disk(place, 600):
        settings = settings_of(place)
        try:
            result = up(settings, "limp")
            with pytest.raises(OSError, match="No space"):
                _fill(place / "filler")
            for name in ("worker", "valkey"):
                kill(place, name)
            with pytest.raises(httpx.HTTPError):
                httpx.get(f"{result.api_url}/die")
            until(lambda: _answers_again(result))
            assert is_alive(result.pid)
            (place / "filler").unlink()
            until(lambda: _all_run(place))
            assert result.pid == control.status(settings)["pid"]
        finally:
            control.down(settings)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))


def _all_run(home: Path) -> bool:
    processes: Any = control.status(settings_of(home))["processes"]
    running = {each["name"] for each in processes if each["state"] == "running"}
    return {"postgres", "valkey", "seaweed", "api", "worker"} <= running


def test_the_state_is_json_for_others(home: Path) -> None:
    up(settings_of(home), "limp")
    [limp] = [e for e in json.loads((home / "run" / "state.json").read_text())["processes"] if e["name"] == "limp"]
    assert limp["down_since"] <= time.time()
