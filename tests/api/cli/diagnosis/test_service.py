"""What `memgen doctor` says of an address where another program answers, and what `memgen open` finds there."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from api.cli.diagnosis.findings import Diagnosis, Installation
from api.cli.diagnosis.service import CHECKS
from memgen_client import ApiUnreachable
from memgen_client.pages import has_page
from registry.settings import load_settings

Answering = Callable[[int, str], str]


@contextmanager
def _foreign(status: int, body: str) -> Iterator[str]:
    """The URL of a server that answers everything alike."""

    class Alike(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Alike) as server:
        thread = threading.Thread(target=server.serve_forever, name="foreign-server")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(timeout=20)


@pytest.fixture
def answering() -> Iterator[Answering]:
    with ExitStack() as running:
        yield lambda status, body: running.enter_context(_foreign(status, body))


def _look_at(url: str, api_key: str | None = None) -> list[Diagnosis]:
    [check] = [each for each in CHECKS if each.name == "API"]
    settings = load_settings(service_env=False, api_url=url, api_key=api_key)
    return [*check.look(Installation(settings, settings))]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, "<html>Welcome</html>"),
        (200, '{"status": "ready"}'),
        (200, '{"status": "ready", "checks": ["ok"]}'),
        (404, '{"detail": "Not Found"}'),
        (503, "<html>Bad gateway</html>"),
        (503, '{"error": "busy"}'),
    ],
)
def test_another_program_is_not_taken_for_the_api(answering: Answering, status: int, body: str) -> None:
    url = answering(status, body)
    [found] = _look_at(url)
    assert (found.check, found.state) == ("API", "fail")
    assert f"what answers at {url} is no MemGen API: " in found.found
    assert "MEMGEN_API_URL" in found.advice
    assert "memgen up --port 0" in found.advice


def test_a_program_that_says_nothing_has_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.cli.diagnosis.service._SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        [found] = _look_at(url)
    assert (found.check, found.state) == ("API", "fail")
    assert "memgen up --port 0" in found.advice


def test_an_api_of_another_release_is_said_to_be_one(answering: Answering) -> None:
    url = answering(200, '{"status": "ready", "checks": {"database": "ok"}, "name": "base"}')
    api, other = _look_at(url, api_key="mg_any")
    assert (api.state, other.check, other.state) == ("ok", "API", "fail")
    assert "release" in other.advice


def test_an_api_that_is_not_ready_says_what_is_missing(answering: Answering) -> None:
    """As behind a proxy that lets everybody ask; without a key, that is all that can be known."""
    url = answering(503, '{"status": "not ready", "checks": {"database": "ok", "model": "ModelNotReady: loads"}}')
    api, key = _look_at(url)
    assert (api.state, api.found) == ("fail", f"{url} is not ready: model: ModelNotReady: loads")
    assert (key.check, key.state) == ("API key", "fail")


@pytest.mark.parametrize(("status", "is_page"), [(200, True), (303, True), (401, False), (404, False), (503, False)])
def test_a_page_is_what_a_browser_may_look_at(answering: Answering, status: int, is_page: bool) -> None:
    assert has_page(answering(status, "") + "/", "/ui", timeout=10) is is_page


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ftp://127.0.0.1", "nowhere"])
def test_nobody_has_a_page(url: str) -> None:
    with pytest.raises(ApiUnreachable):
        has_page(url, "/ui", timeout=10)
