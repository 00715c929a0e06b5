"""Alembic's entry. The URL comes from `registry.database.upgrade`, or on the command line from the settings."""

import time

from alembic import context
from sqlalchemy import Connection, create_engine, func, pool, select

from registry.models import Base
from registry.settings import load_settings

_PATIENCE_SECONDS = 0.2


def database_url() -> str:
    given = context.config.attributes.get("database_url")
    if given:
        return str(given)
    configured = load_settings().database_url
    if configured is None:
        raise SystemExit("no database: set MEMGEN_DATABASE_URL, or run `memgen up` first")
    return configured.get_secret_value()


def run() -> None:
    engine = create_engine(database_url(), poolclass=pool.NullPool)
    with engine.connect() as connection:
        wait_for_turn(connection)
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            compare_type=True,
            transaction_per_migration=True,  # an index that is made beside running writes begins one anyway
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


def wait_for_turn(connection: Connection) -> None:
    """Several processes may migrate at their start: they take turns, and the second finds nothing left to do.

    The turn ends with the connection. A process asks again and again: one that waited within a statement would be
    waited for by an index that the other makes beside running writes.
    """
    turn = select(func.pg_try_advisory_lock(func.hashtextextended("migrations of memgen", 0)))
    while True:
        with connection.begin():
            if connection.scalar(turn):
                return
        time.sleep(_PATIENCE_SECONDS)


run()
