"""Data to delete, and its deletion as the endpoint does it."""

import uuid
from typing import Any

from registry import jobs
from registry.adapters import get_adapter
from registry.database import transaction
from registry.deletion.deletions import Deleted, DeletionPolicy, delete_data
from registry.deletion.erasure import finish_erasure
from registry.deletion.retraining import advance_chain, chains_to_advance
from registry.deletion.scope import DeletionScope, DeletionSubject
from registry.job_requests import AnyTraining, TrainWeaver
from registry.models import Version
from registry.serving.aliases import promote
from tests.registry.conftest import Rows, chats

SECRET = "tulip-4711"


def with_secrets(rows: Rows) -> None:
    """A task of 40 ordinary trajectories and 20 of user anna in session s1, some of them held out."""
    rows.task("a", [*chats(40, word="order"), *chats(20, word=SECRET, session_id="s1", metadata={"user": "anna-92"})])


def delete(rows: Rows, scope: DeletionScope, identifier: str, policy: DeletionPolicy = "keep", **more: Any) -> Deleted:
    with transaction(rows.services.sessions) as session:
        return delete_data(
            session,
            rows.project_id,
            DeletionSubject(scope, identifier),
            policy,
            actor="key test",
            reason="asked for it",
            **more,
        )


def finish(rows: Rows, deleted: Deleted) -> bool:
    return finish_erasure(rows.services.sessions, rows.services.store, deleted.deletion.id)


def promote_version(rows: Rows, version: Version, alias: str = "champion") -> None:
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot", lock=True)
        promote(session, adapter, alias, session.get_one(Version, version.id), actor="test", reason="")


def advance(rows: Rows) -> list[uuid.UUID]:
    """Advance all chains of retrainings, as the beat does."""
    with transaction(rows.services.sessions) as session:
        waiting = chains_to_advance(session)
    started = []
    for chain in waiting:
        with transaction(rows.services.sessions) as session:
            started += advance_chain(session, chain)
    return started


def queue_training(rows: Rows, request: AnyTraining | None = None) -> uuid.UUID:
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot")
        return jobs.create_job(session, rows.project_id, request or TrainWeaver("a"), adapter).id
