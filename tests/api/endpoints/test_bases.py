"""`GET /v1/base`: what is served and how it reads, also where nothing can be served."""

import shutil
from pathlib import Path

import httpx
import pytest

from memgen.backbone.description import describe
from memgen.backbone.loading import read_base
from memgen_client import JsonClient
from registry.settings import Settings
from tests.api.live_api import serve


def _get(url: str, key: str | None) -> httpx.Response:
    return httpx.get(f"{url}/v1/base", headers={"Authorization": f"Bearer {key}"} if key else {})


@pytest.mark.parametrize("serve_model", [False, True])
def test_the_base_is_described_as_it_is_served(
    settings: Settings, tiny_base: Path, api_key: str, serve_model: bool
) -> None:
    mine = settings.model_copy(update={"base_model": str(tiny_base)})
    with serve(mine, serve_model=serve_model) as url, JsonClient(url, api_key) as client:
        if serve_model:
            client.chat.create("base", [{"role": "user", "content": "hi"}], max_tokens=1)
        assert client.base.get() == describe(read_base(str(tiny_base), cache_dir=settings.models_dir))
        assert _get(url, None).status_code == 401


@pytest.mark.parametrize("serve_model", [False, True])
def test_a_refused_base_is_told_and_nothing_is_bound_to_it(
    settings: Settings, tiny_base: Path, api_key: str, tmp_path: Path, serve_model: bool
) -> None:
    refused = Path(shutil.copytree(tiny_base, tmp_path / "refused"))
    (refused / "chat_template.jinja").write_text("{{ raise_exception('only pictures') }}")
    with serve(settings.model_copy(update={"base_model": str(refused)}), serve_model=serve_model) as url:
        found = _get(url, api_key)
        assert found.status_code == 200
        assert (found.json()["accepted"], found.json()["profile"]) == (False, None)
        assert "only pictures" in found.json()["refused"]
        made = httpx.post(f"{url}/v1/adapters", json={"name": "bot"}, headers={"Authorization": f"Bearer {api_key}"})
        assert (made.status_code, made.json()["type"]) == (503, "urn:memgen:problem:base_refused")
        assert "only pictures" in made.json()["detail"]
        if serve_model:
            said = httpx.post(
                f"{url}/v1/chat/completions",
                json={"model": "base", "messages": [{"role": "user", "content": "hi"}]},
                headers={"Authorization": f"Bearer {api_key}"},
            )
            assert said.status_code == 503
            assert "only pictures" in said.text
