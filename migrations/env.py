"""Alembic's entry. The URL comes from `registry.database.upgrade`, or on the command line from the settings."""

from alembic import context
from sqlalchemy import create_engine, func, pool, select

from registry.models import Base
from registry.settings import load_settings


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
        context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True)
        with context.begin_transaction():
            # Several processes may migrate at their start: they take turns, and the second finds nothing left to do.
            # The lock ends with the transaction, which is one for all revisions.
            connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("migrations of memgen", 0))))
            context.run_migrations()
    engine.dispose()


run()
