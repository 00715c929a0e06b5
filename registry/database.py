"""Engine, sessions, and `transaction`, which alone commits."""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from select import POLLIN, poll
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import ColumnElement, Engine, any_, create_engine, event, func, literal, make_url, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import InstrumentedAttribute, Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

_Value = TypeVar("_Value")
if TYPE_CHECKING:
    from alembic.config import Config

_CONNECTION_WAIT_SECONDS = 10
_TRUSTED_SECONDS = 5.0
"""How long a connection that nobody uses is taken to be whole, if nothing is heard of its end."""
MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"


_PATIENCE = {
    "connect_timeout": 5,
    # A network that swallows packets answers no query and closes no connection: the kernel has to give up.
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""libpq's options, in seconds but for the last, which is in milliseconds."""


def make_engine(database_url: str, *, pool_size: int = 10) -> Engine:
    """Connections that may have ended meanwhile are tried before they are used, so that a server which was away is used
    again once it is back."""
    engine = create_engine(
        database_url,
        pool_size=pool_size,
        pool_use_lifo=True,  # the one that was used last has its statements prepared, and is the surest to be whole
        max_overflow=20,
        pool_timeout=_CONNECTION_WAIT_SECONDS,
        # What the URL itself says goes first.
        connect_args={name: value for name, value in _PATIENCE.items() if name not in make_url(database_url).query},
    )
    _try_before_use(engine)
    return engine


def _try_before_use(engine: Engine) -> None:
    """As `pool_pre_ping`, without its round trip for a connection that was used just now: a server that ends one says
    so, and its words wait in the socket."""

    @event.listens_for(engine, "checkin")
    def returned(_: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
        entry.info["returned_at"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def lent(connection: DBAPIConnection, entry: ConnectionPoolEntry, _: PoolProxiedConnection) -> None:
        returned_at = entry.info.get("returned_at")
        if returned_at is None:  # it is new
            return
        try:
            if time.monotonic() - returned_at > _TRUSTED_SECONDS or _is_heard(connection):
                engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error


def _is_heard(connection: DBAPIConnection) -> bool:
    """Whether the server has said something that was not asked for, or hung up."""
    heard = poll()
    heard.register(connection.fileno(), POLLIN)
    return bool(heard.poll(0))


def make_sessions(engine: Engine) -> sessionmaker[Session]:
    return sessionmaker(engine, expire_on_commit=False)


@contextmanager
def transaction(sessions: sessionmaker[Session]) -> Iterator[Session]:
    """One transaction: committed when the block ends, rolled back when it raises. Nothing else commits."""
    with sessions() as session, session.begin():
        yield session


@contextmanager
def reading(sessions: sessionmaker[Session]) -> Iterator[Session]:
    """A session that only looks things up, in one round trip a statement: each sees what was committed before it, as in
    a transaction of PostgreSQL's own isolation. What is added to it is not written; nothing may be locked."""
    with sessions(autoflush=False) as session:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        yield session


_LIMIT_EXCEEDED = "54"
"""Class of PostgreSQL's errors of what is too large, too deep or too much for it."""
_READ_ONLY = "25006"
"""The server takes no writes: a standby, in the middle of a failover."""


def may_pass(error: Exception) -> bool:
    """Whether the same may succeed later: the server is away, restarts, takes no writes, has no room, or gave way to
    another transaction.

    Its limits are errors of operation, too, and stay (`is_beyond_limits`).
    """
    if isinstance(error, PoolTimeout | DisconnectionError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated or _sqlstate(error) == _READ_ONLY:
        return True
    return isinstance(error, OperationalError | InterfaceError) and not is_beyond_limits(error)


def is_beyond_limits(error: Exception) -> bool:
    """Whether PostgreSQL can't take what was sent, however often: too large, too deep, too much."""
    return isinstance(error, DBAPIError) and _sqlstate(error).startswith(_LIMIT_EXCEEDED)


def _sqlstate(error: DBAPIError) -> str:
    """Empty if the error did not come from the server."""
    return getattr(error.orig, "sqlstate", None) or ""


@contextmanager
def take_turn(sessions: sessionmaker[Session], name: str) -> Iterator[bool]:
    """A lock by `name`. Yields whether the caller has it; if so, it holds until the block or the process ends.

    It is for long work outside the database: the lock belongs to a connection and needs no open transaction.

    Raises:
        OperationalError: at the end of the block, if the connection broke, so that another process may have had the
            lock meanwhile.
    """
    engine: Engine = sessions.kw["bind"]
    key = func.hashtextextended(name, 0)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        mine = bool(connection.scalar(select(func.pg_try_advisory_lock(key))))
        try:
            yield mine
        finally:
            if mine:
                connection.execute(select(func.pg_advisory_unlock(key)))


def migration_config(database_url: str) -> "Config":
    """Configuration with which Alembic's commands migrate this database."""
    from alembic.config import Config  # imported late: only who migrates waits for it

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["database_url"] = database_url
    return config


@dataclass(frozen=True)
class SchemaRevision:
    found: str | None
    """The revision of the database; None if it was never migrated."""
    newest: str
    """The newest one that this code has."""
    is_known: bool
    """Whether this code has the database's revision; a later release may have migrated it."""


def schema_revision(engine: Engine) -> SchemaRevision:
    """How far the schema is migrated. Migrates nothing."""
    from alembic.runtime.migration import MigrationContext  # imported late, as above
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(MIGRATIONS))
    with engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    known = {each.revision for each in script.walk_revisions()}
    return SchemaRevision(found, script.get_current_head() or "", found is None or found in known)


def upgrade(database_url: str) -> list[str]:
    """Bring the schema to the newest revision. Returns what an operator should know of what became of stored data."""
    from alembic import command  # imported late, as above

    config = migration_config(database_url)
    command.upgrade(config, "head")
    return list(config.attributes.get("notes", ()))


def one_of(column: InstrumentedAttribute[_Value], values: Collection[_Value]) -> ColumnElement[bool]:
    """Whether the column has one of the values, as one parameter: PostgreSQL takes at most 65,535 single ones."""
    return column == any_(literal(list(values), ARRAY(column.type)))
