"""What one test leaves in a database, the next one never finds."""

import sqlalchemy as sa

from registry.database import make_engine, make_sessions, transaction
from registry.keys import ensure_bootstrap_key
from registry.models import ApiKey, Project
from tests.fixtures_database import DatabasePool
from tests.services import Servers


def test_a_database_comes_back_as_it_was(servers: Servers, database_template: str) -> None:
    pool = DatabasePool(servers, database_template)
    with pool.lend() as first:
        engine = make_engine(first)
        with transaction(make_sessions(engine)) as session:
            ensure_bootstrap_key(session, "mg_any")
            session.execute(sa.text("select nextval(sequencename::regclass) from pg_sequences"))
        left_open = engine.connect()
        left_open.execute(sa.select(Project.id))  # holds a lock, as a thread that nobody ended
    with pool.lend() as second:
        assert second == first
        fresh = make_engine(second)
        with transaction(make_sessions(fresh)) as session:
            assert [session.scalar(sa.select(sa.func.count()).select_from(each)) for each in (ApiKey, Project)] == [
                0,
                0,
            ]
            counts = session.execute(sa.text("select nextval(sequencename::regclass) from pg_sequences"))
            assert set(counts.scalars()) == {1}
            # The rules that were off while it was emptied are on.
            assert session.scalar(sa.text("show session_replication_role")) == "origin"
        fresh.dispose()
    left_open.invalidate()
    engine.dispose()


def test_a_database_whose_schema_was_changed_is_lent_no_more(servers: Servers, database_template: str) -> None:
    pool = DatabasePool(servers, database_template)
    with pool.lend() as first:
        engine = make_engine(first)
        with engine.begin() as connection:
            connection.execute(sa.text("alter table projects add column odd text"))
        engine.dispose()
    assert pool.free == []
    with pool.lend() as second:
        assert second != first
        many = make_engine(second)
        with many.begin() as connection:
            numbers = "generate_series(1, 60000) n"
            connection.execute(sa.text(f"insert into projects select gen_random_uuid(), n::text, now() from {numbers}"))
        many.dispose()
    assert pool.free == [], "nor is one that has grown"
