"""Requests while the broker does not answer: what they committed stands, and the reply says that it waits."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.app import create_app
from registry import jobs
from registry.adapters import get_adapter
from registry.database import transaction
from registry.datasets import snapshots
from registry.job_requests import TrainWeaver
from registry.models import Job
from registry.settings import Settings
from tests.registry.conftest import Rows, chats, rows

__all__ = ["rows"]


@pytest.fixture
def client(settings: Settings, api_key: str, tmp_path: Path) -> Iterator[TestClient]:
    """An API whose broker's socket is not there."""
    url = f"redis+socket://{tmp_path}/none.sock?virtual_host=0"
    app = create_app(settings.model_copy(update={"broker_url": SecretStr(url)}), serve_model=False)
    with TestClient(app, headers={"Authorization": f"Bearer {api_key}"}, raise_server_exceptions=False) as opened:
        yield opened


def test_a_job_is_kept_once_and_the_reply_says_that_it_waits(client: TestClient, rows: Rows) -> None:
    rows.task("a")
    body = {"kind": "train_weaver", "adapter": "bot", "task": "a"}
    replies = [client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "once"}) for _ in range(2)]
    assert [(reply.status_code, reply.json()["waits_for_broker"]) for reply in replies] == [(202, True)] * 2
    [job] = client.get("/v1/jobs").json()["data"]
    assert (job["id"], job["state"], job["waits_for_broker"]) == (replies[0].json()["id"], "queued", True)
    events = client.get(f"/v1/jobs/{job['id']}/events").json()["data"]
    assert [(event["level"], event["message"]) for event in events] == [("info", "queued"), ("warning", jobs.UNSENT)]


def test_a_deletion_is_done_and_its_jobs_wait(client: TestClient, rows: Rows) -> None:
    rows.task("a", chats(40, session_id="s1"))
    with transaction(rows.services.sessions) as session:
        snapshot = rows.snapshot(session, "a")
        dataset = snapshots.record_dataset(session, snapshot)
        adapter = get_adapter(session, rows.project_id, "bot")
        for _ in range(2):
            jobs.create_job(session, rows.project_id, TrainWeaver("a"), adapter).dataset_id = dataset.id
    victim = str(snapshot.items[0][0])
    reply = client.post("/v1/deletions", json={"scope": "trajectory", "id": victim, "dry_run": False})
    assert reply.status_code == 200, reply.text
    assert client.get(f"/v1/trajectories/{victim}").status_code == 404
    waiting = [uuid.UUID(job_id) for job_id in reply.json()["jobs_waiting_for_broker"]]
    with transaction(rows.services.sessions) as session:
        assert waiting == list(session.scalars(sa.select(Job.id).where(Job.state == "queued").order_by(Job.seq)))
    assert len(waiting) == 2
