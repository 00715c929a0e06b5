"""The application with its dashboard, and a visitor who has no script: pages and forms, as a browser sends them."""

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from html.parser import HTMLParser

import httpx
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from registry.database import transaction
from registry.keys import create_key
from registry.settings import Settings
from registry.wiring import Services
from tests.registry.conftest import rows

__all__ = ["rows"]


class _Forms(HTMLParser):
    """The forms of a page: fields that are there, by the path that they are sent to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, dict[str, str]] = {}
        self._open: dict[str, str] | None = None
        self._select = self._area = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._open = self.found.setdefault(values.get("action", ""), {})
        elif self._open is None:
            return
        elif tag == "input" and "name" in values:
            if values.get("type") != "checkbox" or "checked" in values:
                self._open[values["name"]] = values.get("value", "")
        elif tag == "select":
            self._select = values["name"]
        elif tag == "option" and (self._select not in self._open or "selected" in values):
            self._open[self._select] = values.get("value", "")
        elif tag == "textarea":
            self._area = values["name"]
            self._open[self._area] = ""

    def handle_data(self, data: str) -> None:
        if self._open is not None and self._area:
            self._open[self._area] += data.removeprefix("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._open = None
        elif tag == "textarea":
            self._area = ""


def forms_of(page: str) -> dict[str, dict[str, str]]:
    parser = _Forms()
    parser.feed(page)
    return parser.found


@dataclass
class Visitor:
    http: httpx.Client

    def sign_in(self, key: str, to: str = "/ui") -> httpx.Response:
        return self.http.post("/ui/sign-in", data={"key": key, "next": to})

    def open(self, path: str = "", status: int = 200) -> str:
        answer = self.http.get(f"/ui{path}")
        assert answer.status_code == status, answer.text
        return answer.text

    def send(self, page: str, action: str, **fields: str) -> httpx.Response:
        """Fill in the form of a page that goes to `action`, and send it."""
        form = forms_of(page)[action]
        assert all(f'name="{name}"' in page for name in fields), "a person could not fill that in"
        return self.http.post(action, data={**form, **fields})


def wrongs_of(page: str) -> dict[str, str]:
    """What a refused form says is wrong, by the id of the field that says so of itself."""
    found = {}
    for named, told in re.findall(
        r'id="([\w-]+)"[^>]*? aria-describedby="([\w-]+-wrong)[^>]*? aria-invalid="true"', page
    ):
        [text] = re.findall(rf'id="{told}">.*?</span> (.*?)</p>', page, re.DOTALL)
        found[named] = unescape(text)
    return found


@pytest.fixture
def app_client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings, serve_model=False), follow_redirects=True) as opened:
        yield opened


@pytest.fixture
def stranger(app_client: TestClient) -> Visitor:
    """Nobody is signed in."""
    return Visitor(app_client)


@pytest.fixture
def visitor(stranger: Visitor, api_key: str) -> Visitor:
    """Signed in with a key that may do everything."""
    assert stranger.sign_in(api_key).status_code == 200
    return stranger


def key_with(services: Services, project_id: uuid.UUID, *scopes: str) -> tuple[uuid.UUID, str]:
    with transaction(services.sessions) as session:
        row, key = create_key(session, project_id, "-".join(scopes), scopes)
        return row.id, key
