"""A version with a memory per task goes to another installation, by its archive or as it was pushed to a folder, and
answers there as at home."""

import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from memgen_client import JsonClient
from registry.adapters import create_adapter
from registry.database import transaction
from registry.keys import ensure_bootstrap_key
from registry.models import Adapter, Job, Project
from registry.settings import Settings
from registry.wiring import Services, open_services
from tests.api.cli.invoking import succeed
from tests.e2e.test_switching import ready
from tests.fixtures_database import clone_database
from tests.services import Servers
from tests.workers.conftest import Workshop, answers, settings, workshop
from workers.jobs import check_import
from workers.model import Model
from workers.runner import run

__all__ = ["settings", "workshop"]

PROMPTS = [
    *(f"{letter}{number}" for letter in "yn" for number in range(15)),
    "Something else altogether, and much longer than any of them: what is it?",
]


@pytest.fixture
def elsewhere(settings: Settings, servers: Servers, database_template: str) -> Iterator[Services]:
    """Another installation: a database and a bucket of its own, the same base."""
    with clone_database(servers, database_template) as url:
        own = {"database_url": SecretStr(url), "s3_bucket": f"elsewhere-{uuid.uuid4().hex[:8]}"}
        with open_services(settings.model_copy(update=own)) as opened:
            opened.store.ensure_bucket()
            yield opened


def _answers(url: str, key: str, model: str) -> list[dict[str, Any]]:
    """To each prompt: the task it was found to belong to, where memory was woven, and the choices with what each token
    weighed."""
    told = []
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        for prompt in PROMPTS:
            body = {
                "model": model,
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": 8,
                "temperature": 0,
                "logprobs": True,
            }
            reply = client.post("/v1/chat/completions", json=body)
            assert reply.status_code == 200, reply.text
            said = reply.json()["memgen"]
            told.append(
                {name: said[name] for name in ("task", "cue", "insertions")} | {"choices": reply.json()["choices"]}
            )
    return told


def test_it_answers_there_as_at_home(
    workshop: Workshop,
    settings: Settings,
    elsewhere: Services,
    api_key: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MEMGEN_HOME", str(tmp_path / "cli-home"))
    with transaction(workshop.services.sessions) as session:
        session.execute(sa.text("update adapters set strategy = 'isolated', replay_share = 0, gate_margin = 1"))
        session.execute(sa.text("update adapters set memory = memory || '{\"cue_tokens\": 120}'"))
    for task, parent in (("yes", None), ("nope", 1)):
        workshop.add_task(task, answers(task, 60))
        done = workshop.work(workshop.queue(task, parent=parent))
        assert done.state == "succeeded", done.error
    file = tmp_path / "bot-2.tar"
    with ready(settings) as url, JsonClient(url, api_key) as client:
        client.versions.export_file("bot", 2, file)
        monkeypatch.setenv("MEMGEN_API_KEY", api_key)
        succeed("--api-url", url, "push", "bot@2", str(tmp_path / "pushed"))
        at_home = _answers(url, api_key, "bot@2")
    # All of them are put to use, else this shows little.
    assert {told["task"] for told in at_home} == {"yes", "nope", None}
    assert any(told["cue"] for told in at_home)

    key = f"mg_{uuid.uuid4().hex}"
    with transaction(workshop.services.sessions) as session:
        bot = session.query(Adapter).one()
    with transaction(elsewhere.sessions) as session:
        ensure_bootstrap_key(session, key)
        session.flush()
        create_adapter(
            session,
            session.query(Project).one().id,
            name="desk",
            base_model=bot.base_model,
            base_revision=bot.base_revision,
            strategy="isolated",
            memory=bot.memory,
        )
    with ready(elsewhere.settings) as url, JsonClient(url, key) as client:
        monkeypatch.setenv("MEMGEN_API_KEY", key)
        found = succeed("--api-url", url, "pull", str(tmp_path / "pushed"), "desk", "--json").document
        assert (found["number"], found["origin"]) == (1, "bot@2")
        assert not client.versions.import_file("desk", file)["created"], "a folder has what an archive has"
        check = uuid.UUID(found["check_job"])
        run(elsewhere, {"check_import": partial(check_import.run, model=Model(elsewhere))}, check, "test-worker")
        with transaction(elsewhere.sessions) as session:
            job = session.get_one(Job, check)
            assert job.state == "succeeded", job.error
        client.aliases.promote("desk", 1)
        assert _answers(url, key, "desk") == at_home
