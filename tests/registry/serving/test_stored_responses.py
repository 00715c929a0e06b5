"""Stored responses: whose they are, what they continue, and every way in which they go."""

import uuid
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from registry.clock import utc_now
from registry.database import transaction
from registry.deletion.scope import DeletionSubject, find_affected
from registry.errors import InvalidTrajectory, ResponseNotFound, TrajectoryNotFound
from registry.models import Project, StoredResponse
from registry.serving.stored_responses import (
    ResponseOwner,
    conversation_of,
    delete_response,
    get_response,
    store_response,
    sweep_responses,
)
from registry.wiring import Services
from tests.query_counts import record_queries
from tests.registry.conftest import Rows
from tests.registry.deleting import delete

MOST = 10**6
DAY = timedelta(days=1)


def store(
    services: Services,
    project_id: uuid.UUID,
    name: str,
    previous: str | None = None,
    owner: ResponseOwner | None = None,
    lifetime: timedelta = DAY,
) -> None:
    reply = {"id": name, "previous_response_id": previous, "output": [{"said": f"{name}\0"}]}
    with transaction(services.sessions) as session:
        store_response(session, project_id, reply, [{"z": name, "a": 1}], owner or ResponseOwner(), lifetime)


def conversation(services: Services, project_id: uuid.UUID, name: str, most_bytes: int = MOST) -> list[Any]:
    with transaction(services.sessions) as session:
        return [list(row.items[0].items()) for row in conversation_of(session, project_id, name, most_bytes)]


def stored(services: Services) -> set[str]:
    with transaction(services.sessions) as session:
        return set(session.scalars(sa.select(StoredResponse.id)))


def test_a_conversation_is_read_in_one_query_however_long(services: Services, project_id: uuid.UUID) -> None:
    names = [f"r{number}" for number in range(30)]
    for previous, name in zip([None, *names], names, strict=False):
        store(services, project_id, name, previous)
    with transaction(services.sessions) as session, record_queries(session.get_bind().engine) as sent:
        rows = conversation_of(session, project_id, "r29", MOST)
        assert [row.reply["output"][0]["said"] for row in rows] == [f"{name}\0" for name in names]
    assert len(sent) == 1
    assert conversation(services, project_id, "r1") == [[("z", "r0"), ("a", 1)], [("z", "r1"), ("a", 1)]]
    with pytest.raises(InvalidTrajectory, match="MEMGEN_MAX_CHAT_BYTES") as refused:
        conversation(services, project_id, "r29", most_bytes=200)
    assert refused.value.code == "conversation_too_long"


def test_another_projects_responses_are_not_there(services: Services, project_id: uuid.UUID) -> None:
    store(services, project_id, "r1")
    with transaction(services.sessions) as session:
        session.add(other := Project(name="other"))
        session.flush()
        other_id = other.id
    store(services, other_id, "theirs", "r1")
    with transaction(services.sessions) as session:
        for name in ("r1", "nowhere", "a\0b"):
            with pytest.raises(ResponseNotFound):
                get_response(session, other_id, name)
            with pytest.raises(ResponseNotFound):
                delete_response(session, other_id, name)
        with pytest.raises(InvalidTrajectory, match="goes back to r1"):
            conversation_of(session, other_id, "theirs", MOST)


def test_what_is_continued_lives_as_long_and_the_rest_is_swept(services: Services, project_id: uuid.UUID) -> None:
    store(services, project_id, "first", lifetime=timedelta(hours=1))
    store(services, project_id, "alone", lifetime=timedelta(hours=1))
    store(services, project_id, "second", "first", lifetime=2 * DAY)
    with transaction(services.sessions) as session:
        assert sweep_responses(session, utc_now()) == 0
        assert sweep_responses(session, utc_now() + DAY) == 1
    assert stored(services) == {"first", "second"}
    store(services, project_id, "over", lifetime=-DAY)
    with transaction(services.sessions) as session, pytest.raises(ResponseNotFound, match="store: true"):
        get_response(session, project_id, "over")
    with pytest.raises(InvalidTrajectory) as refused:
        conversation(services, project_id, "over")
    assert refused.value.code == "previous_response_not_found"


def test_deletions_of_sessions_and_users_take_theirs(rows: Rows) -> None:
    services, project_id = rows.services, rows.project_id
    store(services, project_id, "nobodys")
    store(services, project_id, "of session", owner=ResponseOwner("s1"))
    store(services, project_id, "of user", owner=ResponseOwner("s2", "anna"))
    store(services, project_id, "of another", owner=ResponseOwner("anna-like", "ann"))
    with transaction(services.sessions) as session:
        affected = find_affected(session, project_id, DeletionSubject("user", "anna"))
        assert affected.describe(session)["responses"] == 1
    delete(rows, "session", "s1")
    assert stored(services) == {"nobodys", "of user", "of another"}
    delete(rows, "user", "anna")
    assert stored(services) == {"nobodys", "of another"}
    with transaction(services.sessions) as session, pytest.raises(TrajectoryNotFound):
        find_affected(session, project_id, DeletionSubject("user", "anna"))
