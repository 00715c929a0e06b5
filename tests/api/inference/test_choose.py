"""Which engine the settings choose, and what they can't choose."""

import pytest
from pydantic import ValidationError

from api.inference.choose import make_engine
from api.inference.local.engine import LocalEngine
from api.inference.vllm.engine import VllmEngine
from registry.errors import NotConfigured
from registry.settings import Settings


def test_the_engine_is_the_one_that_is_named() -> None:
    assert isinstance(make_engine(Settings()), LocalEngine)
    named = Settings(engine="vllm", vllm_url="http://127.0.0.1:8001, http://127.0.0.1:8002/")
    assert isinstance(make_engine(named), VllmEngine)


def test_vllm_without_a_server_says_what_is_missing() -> None:
    with pytest.raises(NotConfigured, match="MEMGEN_VLLM_URL is not set.*memgen up --engine vllm"):
        make_engine(Settings(engine="vllm"))


def test_an_engine_that_there_is_not_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMGEN_ENGINE", "sglang")
    with pytest.raises(ValidationError, match="engine"):
        Settings()
