"""Deletions over HTTP: anything that was accepted can be deleted, and the record says how retraining goes."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from registry.database import transaction
from registry.models import Adapter, Job
from registry.settings import Settings
from tests.api.live_api import serve
from tests.registry.conftest import Rows, chats, rows
from tests.registry.deleting import promote_version
from tests.registry.stored_versions import make_stored_version

__all__ = ["rows"]


@pytest.fixture
def api(settings: Settings, api_key: str, tiny_base: Path) -> Iterator[httpx.Client]:
    with (
        serve(settings.model_copy(update={"base_model": str(tiny_base)})) as url,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=60) as client,
    ):
        yield client


def _delete(api: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = api.post("/v1/deletions", json={"dry_run": False, **body})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_user_of_any_length_can_be_deleted(api: httpx.Client, rows: Rows) -> None:
    api.post("/v1/tasks", json={"name": "t", "grader": {"kind": "exact"}})
    user = "u" * 5_000
    [sent] = chats(1, metadata={"user": user})
    assert api.post("/v1/trajectories", params={"task": "t"}, json=sent).json()["accepted"] == 1
    assert _delete(api, scope="user", id=user)["affected"]["trajectories"] == 1
    assert api.get("/v1/trajectories").json()["data"] == []


def test_a_policy_that_would_keep_the_words_is_refused_at_once(api: httpx.Client, rows: Rows) -> None:
    """In the dry run already."""
    with transaction(rows.services.sessions) as session:
        adapter = session.query(Adapter).one()
        adapter.memory = {**adapter.memory, "cue_tokens": 100}
    rows.task("a", [*chats(40), *chats(10, word="secret", session_id="s1")])
    make_stored_version(rows, "a")
    for dry_run in (True, False):
        answer = api.post("/v1/deletions", json={"scope": "session", "id": "s1", "dry_run": dry_run})
        assert (answer.status_code, answer.json()["title"]) == (409, "policy keeps words")
        assert (
            "bot@1: versions of an adapter with cue_tokens hold past trajectories word for word"
            in answer.json()["detail"]
        )
    assert _delete(api, scope="session", id="s1", policy="withdraw")["bytes_gone"]


def test_retrainings_are_told(api: httpx.Client, rows: Rows) -> None:
    rows.task("a", [*chats(40), *chats(10, word="secret", session_id="s1")])
    first = make_stored_version(rows, "a")
    promote_version(rows, make_stored_version(rows, "a", parent=first))
    made = _delete(api, scope="session", id="s1", policy="retrain")
    shown = api.get(f"/v1/deletions/{made['id']}").json()
    assert shown == {**made, "jobs_waiting_for_broker": []}
    assert [shown] == api.get("/v1/deletions").json()["data"]
    begun, waiting = shown["retrainings"]
    job = begun.pop("job")
    same = {"chain": 0, "line": 0, "adapter": "bot", "task": "a", "version": None, "stopped": None}
    assert begun == {**same, "replaces": 1, "state": "queued"}
    assert waiting == {**same, "replaces": 2, "state": "waiting", "job": None}

    new = make_stored_version(rows, "a")
    with rows.services.engine.begin() as connection:
        connection.execute(sa.text("update retrainings set job_id = :job where place = 0"), {"job": new.job_id})
    [begun, _] = api.get(f"/v1/deletions/{made['id']}").json()["retrainings"]
    assert (begun["state"], begun["version"], begun["job"]) == ("succeeded", new.number, str(new.job_id))

    with transaction(rows.services.sessions) as session:
        session.get_one(Job, new.job_id).state = "failed"
        session.get_one(Job, new.job_id).error = "no memory left"
        assert session.scalars(sa.select(Adapter)).one().name == "bot"
    [begun, _] = api.get(f"/v1/deletions/{made['id']}").json()["retrainings"]
    assert (begun["state"], begun["stopped"]) == ("failed", f"job {new.job_id} failed: no memory left")
    assert job != begun["job"]


def test_a_deletion_that_is_not_there(api: httpx.Client, rows: Rows) -> None:
    answer = api.get(f"/v1/deletions/{uuid.uuid4()}")
    assert answer.status_code == 404
    assert json.loads(answer.text)["type"] == "urn:memgen:problem:deletion_not_found"


def test_what_a_killed_process_left_behind_is_garbage(api: httpx.Client, settings: Settings) -> None:
    dead = settings.scratch_dir / "1-dead"
    dead.mkdir(parents=True)
    (dead / "data").write_text("secret")
    dead.with_name("1-dead.lock").touch()
    for dry_run, there in ((True, True), (False, False)):
        found = api.post("/v1/garbage", json={"dry_run": dry_run}).json()
        assert (found["folders"], dead.exists()) == (["1-dead"], there)
    assert api.post("/v1/garbage", json={"dry_run": False}).json()["folders"] == []
