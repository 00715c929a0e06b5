"""Fixtures for every test. Imports no torch: most tests need none, and it costs seconds."""

import os
from collections.abc import Iterator

import pytest

from tests.fixtures_database import api_key, database_template, database_url, project_id, services, settings
from tests.fixtures_model import tiny_base
from tests.services import Servers, run_servers

# Before torch starts: the workers of `pytest -n` share the cores, and threads that spin on them starve each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

__all__ = ["api_key", "database_template", "database_url", "project_id", "services", "settings", "tiny_base"]


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with run_servers() as running:
        yield running
