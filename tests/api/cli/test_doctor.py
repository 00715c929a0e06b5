"""`memgen doctor` as a shell sees it: with everything down, servers that hang, a live API, and what is set wrong."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from registry.settings import Settings, child_environment
from tests.api.cli.invoking import memgen

DOCTOR = (sys.executable, "-c", "from api.cli.main import run; run()", "doctor")


@pytest.fixture
def alone(no_service: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home where nothing was ever started, and an address where nobody listens."""
    for name in ("DATABASE_URL", "BROKER_URL", "S3_URL", "UPSTREAMS"):
        monkeypatch.delenv(f"MEMGEN_{name}", raising=False)
    monkeypatch.setenv("MEMGEN_API_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("MEMGEN_BASE_MODEL", str(tiny_base))
    return no_service


def _by_check(document: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {each["check"]: each for each in document["checks"]}


def test_where_nothing_was_started(alone: Path) -> None:
    done = memgen("doctor", "--json")
    assert (done.code, done.err) == (1, "")
    assert done.document["ok"] is False
    found = _by_check(done.document)
    states = {name: each["state"] for name, each in found.items()}
    expected = {
        **dict.fromkeys(("Python", "packages", "base model", "leftovers"), "ok"),
        **dict.fromkeys(("database", "broker", "object store", "upstreams"), "skip"),
        "stack": "warn",
        "API": "fail",
    }
    assert {name: states[name] for name in expected} == expected
    assert found["API"]["advice"].startswith("`memgen up` starts it")
    assert found["base model"]["found"].rpartition(" at ")[2].startswith("sha256:")
    assert all(each["advice"] for each in found.values() if each["state"] in ("warn", "fail"))
    assert not alone.exists(), "it only looks"

    shown = memgen("doctor")
    assert shown.code == 1
    lines = [line.split() for line in shown.out.splitlines()]
    assert lines[0] == ["check", "found"]
    assert ["fail", "API"] in [line[:2] for line in lines]
    assert "API: `memgen up` starts it" in shown.out


def test_servers_that_take_connections_and_say_nothing_hold_it_up_for_as_long_as_said(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        for name, url in {
            "DATABASE_URL": f"postgresql+psycopg://memgen:very-secret@{place}/memgen",
            "BROKER_URL": f"redis://:very-secret@{place}/0",
            "S3_URL": f"http://key:very-secret@{place}",
            "API_URL": f"http://{place}",
            "API_KEY": "mg_very-secret",
        }.items():
            monkeypatch.setenv(f"MEMGEN_{name}", url)
        began = time.monotonic()
        done = subprocess.run(
            [*DOCTOR, "--json", "--limit", "2"], capture_output=True, text=True, timeout=300, check=False
        )
        assert time.monotonic() - began < 240, "loading its code included, on a busy machine"
    assert (done.returncode, done.stderr) == (1, "")
    states = {name: each["state"] for name, each in _by_check(json.loads(done.stdout)).items()}
    assert {states[name] for name in ("database", "broker", "object store", "API")} == {"fail"}
    assert "very-secret" not in done.stdout


def test_a_live_api_with_real_servers(
    api_url: str, settings: Settings, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in child_environment(settings).items():
        if name.startswith("MEMGEN_") and name not in ("MEMGEN_HOME", "MEMGEN_API_URL", "MEMGEN_API_KEY"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("MEMGEN_BASE_MODEL", str(tiny_base))
    found = _by_check(memgen("doctor", "--json").document)
    right = ("database", "clock", "migrations", "broker", "object store", "objects", "API key", "served base")
    assert {name: found[name]["state"] for name in right} == dict.fromkeys(right, "ok"), found
    assert found["workers"]["state"] == "fail"
    assert "model: " in found["API"]["found"], "this API serves none"
    assert found["stack"]["state"] == "skip", "the servers are the user's own"

    monkeypatch.setenv("MEMGEN_API_KEY", "mg_of-nobody")
    monkeypatch.setenv("MEMGEN_BASE_MODEL", "owner/another")
    done = memgen("doctor", "--json")
    wrong = _by_check(done.document)
    assert (wrong["API key"]["state"], wrong["base model"]["state"]) == ("fail", "warn")
    assert "mg_of-nobody" not in done.out


def test_an_upstreams_file_that_is_wrong(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "upstreams.toml"
    path.write_text('[strong]\nbase_url = "https://example.com"\nmodels = ["x"]\napi_key = "up-very-secret"\n')
    monkeypatch.setenv("MEMGEN_UPSTREAMS", str(path))
    done = memgen("doctor", "--json")
    found = _by_check(done.document)["upstreams"]
    assert (found["state"], "api_key_env" in found["found"]) == ("fail", True)
    assert "up-very-secret" not in done.out + done.err


def test_settings_that_are_wrong_are_a_line_of_the_report(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMGEN_API_PORT", "many")
    done = memgen("doctor", "--json")
    assert done.code == 1
    [found] = done.document["checks"]
    assert (found["check"], found["state"]) == ("settings", "fail")
    assert "MEMGEN_API_PORT" in found["found"]


def test_a_package_that_does_not_load_stops_no_other_check(alone: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "torch.py").write_text("raise OSError('libtorch_cpu.so: cannot open shared object file')")
    path = os.pathsep.join([str(tmp_path / "broken"), *sys.path])
    done = subprocess.run(
        [*DOCTOR, "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert any("libtorch_cpu.so" in each["found"] for each in document["checks"]), document
    assert {"Python", "disk", "database", "API"} <= _by_check(document).keys()
