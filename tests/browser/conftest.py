"""A real Chromium against the real application: `make test-browser`, and no part of `make test`."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from registry.settings import Settings
from tests.api.live_api import serve
from tests.registry.conftest import rows

__all__ = ["rows"]

CHROMIUM = os.environ.get("MEMGEN_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
PICTURES = os.environ.get("MEMGEN_PICTURES")
"""Folder in which pictures of pages are kept; without it none are."""
_QUIETLY = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Person:
    """Somebody in front of a browser of their own."""

    page: Any
    url: str
    troubles: list[str]
    """What the browser complained of: scripts that failed, and what the content security policy refused."""

    def open(self, path: str = "") -> None:
        self.page.goto(f"{self.url}/ui{path}")

    def sign_in(self, key: str) -> None:
        self.open()
        self.page.get_by_label("API key").fill(key)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_role("heading", name="Overview").wait_for()

    def picture(self, name: str) -> None:
        if PICTURES:
            file = Path(PICTURES) / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=file, full_page=True)
            # A page has few colours: with a palette of them the picture is a third as large.
            Image.open(file).convert("RGB").quantize(128).save(file, optimize=True)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="`make test-browser` installs playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium; on Debian: apt-get install chromium, elsewhere set MEMGEN_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_QUIETLY))
        yield browser
        browser.close()


@pytest.fixture
def url(settings: Settings, tiny_base: Path) -> Iterator[str]:
    with serve(settings.model_copy(update={"base_model": str(tiny_base)}), serve_model=True) as found:
        yield found


@pytest.fixture
def person(chromium: Any, url: str) -> Iterator[Callable[..., Person]]:
    """Makes people; at the end none of their browsers may have had a complaint."""
    people: list[Person] = []

    def make(**options: Any) -> Person:
        page = chromium.new_context(**options).new_page()
        troubles: list[str] = []
        page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        people.append(Person(page, url, troubles))
        return people[-1]

    yield make
    for each in people:
        each.page.context.close()
    # A page that says 401, 404 or 409 is no trouble of the browser's, but it says so.
    assert [text for each in people for text in each.troubles if "Failed to load resource" not in text] == []
