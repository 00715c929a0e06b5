"""An API with one upstream, which is a real server on the loopback."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from registry.settings import Settings
from tests.api.gateway.upstream_server import UpstreamServer, run_upstream
from tests.api.live_api import serve

UPSTREAM_KEY = "up-very-secret-0123456789"


@pytest.fixture
def upstream() -> Iterator[UpstreamServer]:
    with run_upstream() as running:
        yield running


@pytest.fixture
def serving(
    settings: Settings, upstream: UpstreamServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., AbstractContextManager[str]]:
    """Serves the API with the upstream `strong` and these of its settings; gives the API's URL."""

    @contextmanager
    def serve_with(alive_seconds: float = 5.0, **limits: Any) -> Iterator[str]:
        monkeypatch.setenv("STRONG_KEY", UPSTREAM_KEY)
        path = tmp_path / "upstreams.toml"
        lines = [f'[strong]\nbase_url = "{upstream.url}"\napi_key_env = "STRONG_KEY"\nprivate = true']
        given = {"models": ["gpt-5", "Qwen/Qwen3-8B"], "retries": 0, **limits}
        path.write_text("\n".join([*lines, *(f"{name} = {value!r}" for name, value in given.items())]))
        changed = {"upstreams": path, "stream_alive_seconds": alive_seconds}
        with serve(settings.model_copy(update=changed)) as url:
            yield url

    return serve_with


@pytest.fixture
def api_url(serving: Callable[..., AbstractContextManager[str]]) -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def client_of(api_key: str) -> Iterator[Callable[[str], openai.OpenAI]]:
    """Stock clients of an API, without retries of their own."""
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(openai.OpenAI(base_url=f"{url}/v1", api_key=api_key, max_retries=0))


@pytest.fixture
def client(client_of: Callable[[str], openai.OpenAI], api_url: str) -> openai.OpenAI:
    return client_of(api_url)


@pytest.fixture
def http_of(api_key: str) -> Iterator[Callable[[str], httpx.Client]]:
    headers = {"Authorization": f"Bearer {api_key}"}
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=30))


@pytest.fixture
def http(http_of: Callable[[str], httpx.Client], api_url: str) -> httpx.Client:
    return http_of(api_url)
