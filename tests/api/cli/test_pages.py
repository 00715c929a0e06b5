"""`memgen open`, with a browser that the environment names, and with none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from registry.settings import Settings
from tests.api.cli.invoking import fail
from tests.api.live_api import serve

OPEN = (sys.executable, "-c", "from api.cli.main import run; run()", "open")


def _open(browser: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: which browsers there are is found out once."""
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    command = [*OPEN, *arguments]
    environment |= {"BROWSER": browser} if browser else {"PATH": "/nowhere"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_page_is_opened_in_the_browser_that_there_is(api_url: str, tmp_path: Path) -> None:
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o700)
    done = _open(f"{browser} %s")
    assert (done.returncode, done.stdout) == (0, f"{api_url}/ui\n")
    assert opened.read_text() == f"{api_url}/ui\n"


def test_where_there_is_none_the_address_is_printed(api_url: str) -> None:
    done = _open("")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{api_url}/ui\n", "")
    assert '"opened": false' in _open("", "--json").stdout


def test_it_says_where_the_key_to_sign_in_is(api_url: str, no_service: Path) -> None:
    no_service.mkdir(exist_ok=True)
    (no_service / "service.env").write_text("MEMGEN_API_KEY='mg_secret'\n")
    done = _open("")
    assert done.stdout == f"{api_url}/ui\n"
    assert f"the API key of {no_service / 'service.env'}" in done.stderr
    assert "mg_secret" not in done.stdout + done.stderr


def test_an_api_without_the_dashboard_has_its_documentation(
    settings: Settings, no_service: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(settings.model_copy(update={"dashboard": False})) as url:
        monkeypatch.setenv("MEMGEN_API_URL", url)
        assert _open("").stdout == f"{url}/docs\n"


def test_where_no_api_runs_it_says_so(no_service: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMGEN_API_URL", "http://127.0.0.1:1")
    assert "memgen up" in fail("open")
