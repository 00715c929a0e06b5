"""Connections to PostgreSQL: what a look-up costs, and that none is used which has ended meanwhile."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from registry import database
from registry.database import make_engine, make_sessions, reading, transaction
from registry.models import Project
from registry.wiring import Services
from tests.relay import Relay

ONE = sa.select(sa.literal(1))
PROJECTS = sa.select(sa.func.count()).select_from(Project)


@pytest.fixture
def relay(database_url: str) -> Iterator[Relay]:
    url = sa.make_url(database_url)
    relay = Relay(url.host or "127.0.0.1", url.port or 5432)
    yield relay
    relay.close()


@pytest.fixture
def sessions(database_url: str, relay: Relay) -> Iterator[sessionmaker[Session]]:
    """Through the relay, over a connection that has been used."""
    url = sa.make_url(database_url).set(host="127.0.0.1", port=relay.port)
    engine = make_engine(url.render_as_string(hide_password=False))
    sessions = make_sessions(engine)
    look_up(sessions)
    yield sessions
    engine.dispose()


def look_up(sessions: sessionmaker[Session]) -> int:
    with reading(sessions) as session:
        return int(session.scalars(ONE).one())


def test_a_look_up_takes_one_round_trip(sessions: sessionmaker[Session], relay: Relay) -> None:
    relay.drop_after(2)
    assert [look_up(sessions), look_up(sessions)] == [1, 1]
    with pytest.raises(OperationalError):
        look_up(sessions)


def test_a_connection_that_ended_is_not_used(sessions: sessionmaker[Session], relay: Relay) -> None:
    relay.drop()
    assert look_up(sessions) == 1


def test_a_connection_that_nobody_used_for_long_is_tried_first(
    sessions: sessionmaker[Session], relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_TRUSTED_SECONDS", 0.0)
    relay.drop_after(2)
    assert look_up(sessions) == 1
    with pytest.raises(OperationalError):
        look_up(sessions)


def test_reading_holds_no_transaction_and_writes_nothing(services: Services) -> None:
    states = sa.text("select state from pg_stat_activity where pid = :pid")
    with reading(services.sessions) as session:
        pid = session.scalars(sa.text("select pg_backend_pid()")).one()
        session.add(Project(name="not written"))
        before = session.scalar(PROJECTS)
        with transaction(services.sessions) as other:
            assert other.scalars(states, {"pid": pid}).one() == "idle"
            other.add(Project(name="written meanwhile"))
        assert session.scalar(PROJECTS) == before + 1
    with transaction(services.sessions) as session:
        assert session.scalar(PROJECTS) == before + 1
        assert session.scalars(states, {"pid": session.scalar(sa.text("select pg_backend_pid()"))}).one() == "active"
