"""Fixtures for every test. Imports no torch: most tests need none, and it costs seconds."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from tests.fixtures_database import (
    api_key,
    database_template,
    database_url,
    databases,
    project_id,
    services,
    settings,
)
from tests.fixtures_model import tiny_base
from tests.services import Servers, run_servers

# No test speaks to anybody outside, so nobody is trusted: to read the usual authorities takes each client 40 ms.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = os.devnull

# No test is timed: a busy machine is no fault of an example, nor of how it is made.
hypothesis_settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("untimed")

# A browser is driven by an event loop that runs on in its thread, where no other test could start one.
collect_ignore = [] if os.environ.get("MEMGEN_BROWSER") else ["browser"]

# Programs that tests start find the client where this process does, by `pythonpath` in pyproject.toml.
_CLIENT = Path(__file__).resolve().parents[1] / "packages" / "memgen-client" / "src"
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_CLIENT), os.environ.get("PYTHONPATH"))))

# Read when the hub's client is imported: set later, a test waits for the hub, and tries again.
os.environ["HF_HUB_OFFLINE"] = "1"

# Before torch starts: the workers of `pytest -n` share the cores, and threads that spin on them starve each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

__all__ = [
    "api_key",
    "database_template",
    "database_url",
    "databases",
    "project_id",
    "services",
    "settings",
    "tiny_base",
]

_LONG = ("tests/e2e/", "tests/api/local/", "tests/api/cli/", "tests/workers/", "tests/bench/")


_SLOW = (
    *("tests/api/cli/test_hub_repository.py", "tests/api/cli/test_local.py::test_in_the_foreground"),
    *("tests/api/cli/test_local.py::test_the_whole_service", "tests/api/local/test_restarts.py::test_damaged_local"),
    *("tests/api/dashboard/test_every_route.py::test_no_page_offers", "tests/api/http/test_hostile_requests.py"),
    *("tests/api/http/test_servers_away.py::test_a_connection_that_breaks_anywhere", "tests/bench/learning"),
    *(
        "tests/memgen/tasks/test_gym_scorer.py",
        "tests/memgen/training/test_devices.py",
        "tests/registry/test_threads.py",
    ),
    *("tests/registry/test_invariants.py", "tests/registry/transfer/test_hostile_archives.py"),
)
"""What takes longest, beside what is marked where it stands: a run of CI must end in well under half an hour, and
`make test-slow` runs these."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first: a worker of `pytest -n` that gets one of them last works alone for minutes."""
    for item in items:
        if item.nodeid.startswith(_SLOW):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: not item.nodeid.startswith(_LONG))


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with run_servers() as running:
        yield running
