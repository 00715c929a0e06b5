"""A live API for the client's tests, as a user has it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.settings import Settings
from tests.api.live_api import serve


@pytest.fixture
def base_settings(settings: Settings, tiny_base: Path) -> Settings:
    return settings.model_copy(update={"base_model": str(tiny_base), "torch_threads": 1})


@pytest.fixture
def url(base_settings: Settings) -> Iterator[str]:
    with serve(base_settings) as found:
        yield found
