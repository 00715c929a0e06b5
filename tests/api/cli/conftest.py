"""A live API and an environment that points `memgen` at it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.settings import Settings
from tests.api.live_api import serve


@pytest.fixture
def no_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and no MEMGEN_* of the person who runs the tests. Returns the home."""
    home = tmp_path / "cli-home"
    for name in ("MEMGEN_API_URL", "MEMGEN_API_KEY", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MEMGEN_HOME", str(home))
    return home


@pytest.fixture
def api_url(
    settings: Settings, tiny_base: Path, api_key: str, no_service: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    with serve(settings.model_copy(update={"base_model": str(tiny_base)})) as url:
        monkeypatch.setenv("MEMGEN_API_URL", url)
        monkeypatch.setenv("MEMGEN_API_KEY", api_key)
        yield url
