"""A version that can be pushed, where it was pushed to, and a stand-in of the hub with the hub's real library."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from registry.database import transaction
from registry.wiring import Services
from tests.api.cli.invoking import Done, succeed
from tests.hub_server import HubServer, run_hub
from tests.registry.conftest import Rows, chats
from tests.registry.stored_versions import make_stored_version

TOKEN = "hf_very-secret"
REPOSITORY = "acme/support-bot"


@pytest.fixture
def bot(api_url: str, services: Services, project_id: uuid.UUID) -> Rows:
    """`bot@1` of task a, and its child `bot@2` of task b; and `copy`, an adapter for the same base."""
    rows = Rows(services, project_id)
    for name in ("bot", "copy"):
        with transaction(services.sessions) as session:
            Rows(services, project_id, name).make_adapter(session)
    rows.task("a", chats(30))
    rows.task("b")
    make_stored_version(rows, "b", parent=make_stored_version(rows, "a"))
    return rows


@pytest.fixture
def folder(bot: Rows, tmp_path: Path) -> Path:
    """Where `bot@2` was pushed to."""
    succeed("push", "bot@2", str(tmp_path / "pushed"), "--license", "apache-2.0", "--base-model", "acme/tiny")
    return tmp_path / "pushed"


def metadata_of(card: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return loaded


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with run_hub() as running:
        running.tokens.add(TOKEN)
        yield running


@pytest.fixture
def at_hub(hub: HubServer, bot: Rows, tmp_path: Path) -> Callable[..., Done]:
    """Calls `memgen` in a process of its own: the hub's library reads the environment when it is loaded."""

    def call(*arguments: str, token: str | None = TOKEN) -> Done:
        environment = os.environ | {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HOME": str(tmp_path / "hf"),
        }
        for name in ("HF_TOKEN", "HF_HUB_DISABLE_XET"):
            environment.pop(name, None)
        if token is not None:
            environment["HF_TOKEN"] = token
        command = [sys.executable, "-c", "from api.cli.main import run; run()", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    return call


def push(at_hub: Callable[..., Done], version: str = "bot@2", *more: str, token: str | None = TOKEN) -> Done:
    return at_hub("push", version, REPOSITORY, "--base-model", "acme/tiny", *more, token=token)
