"""`memgen up`, `status` and `down` with the real service on a tiny base, and what `up` prepares."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from dotenv import dotenv_values
from pydantic import SecretStr

from api.cli.stack import prepare
from registry.database import transaction
from registry.errors import NotConfigured
from registry.keys import authenticate
from registry.settings import Settings
from registry.wiring import Services
from tests.api.cli.invoking import fail, memgen, succeed
from tests.trajectory_samples import chat, line


@pytest.fixture
def home(tiny_base: Path, no_service: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # Not pytest's own folder: that is private to its owner, and PostgreSQL's account must get through.
    path = Path(tempfile.mkdtemp(prefix="memgen-"))
    path.chmod(0o711)
    monkeypatch.setenv("MEMGEN_HOME", str(path))
    monkeypatch.setenv("MEMGEN_BASE_MODEL", str(tiny_base))
    monkeypatch.setenv("MEMGEN_TORCH_THREADS", "1")
    for name in ("MEMGEN_DATABASE_URL", "MEMGEN_BROKER_URL", "MEMGEN_S3_URL"):
        monkeypatch.delenv(name, raising=False)
    yield path
    succeed("down")
    shutil.rmtree(path, ignore_errors=True)


def test_nothing_runs_at_first(home: Path) -> None:
    assert succeed("status", "--json").document["running"] is False
    assert str(home) in succeed("status").out
    assert succeed("down", "--json").document == {"stopped": False, "home": str(home)}
    assert "Nothing runs" in succeed("down").out


def test_a_taken_port_is_one_clear_line(home: Path, servers: object) -> None:
    port = httpx.URL(servers.s3_url).port  # type: ignore[attr-defined]  # some port that is taken
    assert str(port) in fail("up", "--port", str(port), "--json")


def test_the_whole_service_from_the_command_line(home: Path, tmp_path: Path) -> None:
    started = succeed("up", "--port", "0", "--json")
    assert "postgres: running" in started.err
    assert started.document["already_running"] is False
    again = succeed("up", "--port", "0")
    api_url = started.document["api_url"]
    assert api_url in again.out
    assert f". {home}/service.env; export OPENAI_BASE_URL={api_url}/v1" in again.out
    assert (dotenv_values(home / "service.env")["MEMGEN_API_KEY"] or "mg_") not in again.out
    status = succeed("status", "--json").document
    assert {each["state"] for each in status["processes"]} == {"running"}
    assert "worker-gpu" in succeed("status").out
    examined = memgen("doctor", "--json")
    assert examined.code == 0, examined.out
    assert {each["check"] for each in examined.document["checks"] if each["state"] == "ok"} >= {
        *("stack", "database", "migrations", "clock", "broker", "workers", "code", "objects", "API", "API key"),
        *("base model", "served base", "leftovers"),
    }, examined.out
    assert (dotenv_values(home / "service.env")["MEMGEN_API_KEY"] or "mg_") not in examined.out

    file = tmp_path / "runs.jsonl"
    file.write_bytes(b"\n".join(line(chat(f"question {n}", answer="yes")) for n in range(20)))
    succeed("task", "create", "t", "--holdout-share", "0.4")
    assert succeed("upload", str(file), "--task", "t", "--json").document["accepted"] == 20
    succeed("adapter", "create", "bot", "--memory", "latents=2", "--memory", "rank=2")
    trained = succeed("train", "bot", "--task", "t", "--steps", "2", "--set", "batch_size=2", "--json").document
    assert trained["job"]["result"]["version"] == trained["version"]["number"] == 1
    assert trained["version"]["verdict"] in ("passed", "rejected")
    answer = succeed("chat", "bot@1", "question 1", "--max-tokens", "3", "--json").document
    assert answer["memgen"]["version"] == 1

    assert succeed("down", "--json").document["stopped"] is True
    assert "memgen up" in fail("jobs")


def test_in_the_foreground_ctrl_c_stops_everything(home: Path) -> None:
    command = [sys.executable, "-c", "from api.cli.main import run; run()", "up", "--foreground", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        deadline = time.monotonic() + 120
        while succeed("status", "--json").document["phase"] != "ready" and time.monotonic() < deadline:
            time.sleep(0.2)
        os.kill(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "export OPENAI_BASE_URL=" in out
    assert out.endswith("Stopped.\n")
    assert succeed("status", "--json").document["running"] is False


def test_prepare_makes_the_key_known_and_may_be_repeated(settings: Settings, services: Services) -> None:
    with pytest.raises(NotConfigured, match="MEMGEN_API_KEY"):
        prepare(settings.model_copy(update={"api_key": None}))
    complete = settings.model_copy(update={"api_key": SecretStr("mg_mine"), "s3_bucket": "prepared"})
    prepare(complete)
    prepare(complete)
    with transaction(services.sessions) as session:
        assert authenticate(session, "mg_mine").scopes == {"admin"}
