"""`memgen upstreams`, against a live API and a live upstream; and what `memgen up` refuses."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from registry.settings import Settings
from tests.api.cli.invoking import fail, memgen, succeed
from tests.api.gateway.upstream_server import Received, UpstreamServer, run_upstream
from tests.api.live_api import serve

KEY = "up-very-secret-0123456789"


@pytest.fixture
def upstream() -> Iterator[UpstreamServer]:
    with run_upstream() as running:
        yield running


@pytest.fixture
def api_url(
    settings: Settings, upstream: UpstreamServer, api_key: str, no_service: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    path = no_service.parent / "upstreams.toml"
    path.write_text(
        f"""
        [strong]
        base_url = "{upstream.url}"
        api_key_env = "STRONG_KEY"
        models = ["gpt-5", "gpt-6"]
        private = true
        [others]
        base_url = "{upstream.url}"
        models = ["*"]
        private = true
        projects = ["elsewhere"]
        """
    )
    monkeypatch.setenv("STRONG_KEY", KEY)
    with serve(settings.model_copy(update={"upstreams": path})) as url:
        monkeypatch.setenv("MEMGEN_API_URL", url)
        monkeypatch.setenv("MEMGEN_API_KEY", api_key)
        yield url


def test_upstreams_are_listed_and_checked(api_url: str, upstream: UpstreamServer) -> None:
    shown = succeed("upstreams", "list").out
    assert "strong/gpt-5, strong/gpt-6" in shown
    assert "others" not in shown, "it is another project's"
    [listed] = succeed("upstreams", "list", "--json").document["data"]
    assert (listed["name"], listed["has_key"], listed["requests"], listed["max_concurrent"]) == ("strong", True, 0, 32)
    assert upstream.url not in str(listed)

    models = {"object": "list", "data": [{"id": "gpt-5"}, {"id": "gpt-6"}, {"id": "gpt-7"}]}
    upstream.play = lambda request: request.reply(models)
    assert "it answers, and lists 3 models" in succeed("upstreams", "check").out
    assert upstream.seen[0].path == "/v1/models"
    assert upstream.seen[0].headers["Authorization"] == f"Bearer {KEY}"


def test_a_url_that_may_lack_its_path_is_said(api_url: str, upstream: UpstreamServer) -> None:
    """Not every server has a list of models."""
    upstream.play = lambda request: request.reply({"error": "not found"}, 404)
    [checked] = succeed("upstreams", "check", "--json").document["data"]
    assert checked["ok"]
    assert "/v1" in checked["detail"]


def test_what_can_not_be_used_is_said(api_url: str, upstream: UpstreamServer) -> None:
    def quote(request: Received) -> None:
        request.reply({"error": {"message": f"bad key {KEY}"}}, 401)

    for play, says in (
        (lambda request: request.reply({"data": [{"id": "gpt-5"}]}), "it does not list gpt-6"),
        (quote, "it answered 401"),
        (lambda request: request.reply(b"not json"), "can't be read"),
        (Received.break_off, "can't be used"),
    ):
        upstream.play = play
        done = memgen("upstreams", "check", "strong", "--json")
        [checked] = done.document["data"]
        assert (done.code, checked["ok"]) == (1, False)
        assert says in checked["detail"]
        assert KEY not in done.out + done.err
    assert "upstreams list" in fail("upstreams", "check", "others")


def test_an_upstreams_model_can_be_chatted_with(api_url: str) -> None:
    done = succeed("chat", "strong/gpt-5", "hi")
    assert done.out == "Hello\n"
    assert "[gpt-5-real, an upstream's]" in done.err
    assert succeed("chat", "strong/gpt-5", "hi", "--json").document["memgen"]["version"] == "strong/gpt-5"


def test_another_projects_upstream_is_not_there(api_url: str, api_key: str, upstream: UpstreamServer) -> None:
    body = {"model": "others/gpt-5", "messages": [{"role": "user", "content": "hi"}]}
    headers = {"Authorization": f"Bearer {api_key}"}
    reply = httpx.post(f"{api_url}/v1/chat/completions", json=body, headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert "others" not in reply.json()["error"]["message"].partition("there are")[2]
    assert upstream.seen == []


def test_a_broken_file_is_refused_before_anything_starts(no_service: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = no_service.parent / "upstreams.toml"
    path.write_text(f'[strong]\nbase_url = "https://example.com"\nmodels = ["x"]\napi_key = "{KEY}"\n')
    monkeypatch.setenv("MEMGEN_UPSTREAMS", str(path))
    said = fail("up")
    assert "api_key_env" in said
    assert KEY not in said
    assert not (no_service / "run").exists()
