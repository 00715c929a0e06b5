"""A fresh, migrated database for each test: real commits, nothing shared.

To clone one from the template takes a quarter of a second of computing, so one is emptied for the next test instead,
where that makes it as good as new: a test that changed the schema, or left much behind, leaves it to nobody.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql
from pydantic import SecretStr

from api.local.health import libpq_url
from registry.database import transaction, upgrade
from registry.keys import DEFAULT_PROJECT, ensure_bootstrap_key
from registry.models import Project
from registry.settings import Settings, load_settings
from registry.wiring import Services, open_services
from tests.services import BUCKET, Servers

TEMPLATE = "memgen_template"
_KEPT = "alembic_version"
_MOST_PAGES = 400
"""Of all tables together: emptied ones stay as large as they were, and plans would tell."""

_OTHERS_END = """
select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = current_database() and pid <> %s
"""
_PAGES = """
select (sum(pg_relation_size(oid)) / 8192)::bigint
from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace
"""
_SCHEMA = """
select md5(string_agg(line, ' ' order by line)) from (
    select concat_ws(' ', 'class', oid, xmin) as line from pg_class where relnamespace = 'public'::regnamespace
    union all select concat_ws(' ', 'column', attrelid, attnum, a.xmin)
        from pg_attribute a join pg_class c on c.oid = attrelid where relnamespace = 'public'::regnamespace
    union all select concat_ws(' ', 'constraint', oid, xmin) from pg_constraint
    union all select concat_ws(' ', 'trigger', oid, tgenabled) from pg_trigger where not tgisinternal
    union all select concat_ws(' ', 'function', oid, xmin) from pg_proc where pronamespace = 'public'::regnamespace
    union all select concat_ws(' ', 'setting', setrole, xmin) from pg_db_role_setting
        where setdatabase = (select oid from pg_database where datname = current_database())
) as parts
"""
"""What a change of the schema changes. A trigger that is on again after it was off is none."""


def _with_database(url: str, name: str) -> str:
    return sa.make_url(url).set(database=name).render_as_string(hide_password=False)


def _connect(url: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(libpq_url(url), autocommit=True)


def _execute(url: str, statement: str) -> None:
    with _connect(url) as connection:
        connection.execute(sql.SQL(statement))


@pytest.fixture(scope="session")
def database_template(servers: Servers) -> str:
    """Name of a migrated database to clone."""
    _execute(servers.database_url, f"create database {TEMPLATE}")
    upgrade(_with_database(servers.database_url, TEMPLATE))
    return TEMPLATE


@contextmanager
def clone_database(servers: Servers, template: str) -> Iterator[str]:
    """The URL of a fresh database, which is dropped in the end."""
    name = f"test_{uuid.uuid4().hex}"
    _execute(servers.database_url, f"create database {name} template {template} strategy file_copy")
    yield _with_database(servers.database_url, name)
    _execute(servers.database_url, f"drop database {name} with (force)")


@dataclass
class DatabasePool:
    """Databases as the template is, by name; one at a time is in use."""

    servers: Servers
    template: str
    free: list[str] = field(default_factory=list)
    schema: str = ""
    empty: str = ""
    """The statements that empty one."""

    @contextmanager
    def lend(self) -> Iterator[str]:
        name = self.free.pop() if self.free else self._clone()
        url = _with_database(self.servers.database_url, name)
        yield url
        if self._make_anew(url):
            self.free.append(name)
        else:
            _execute(self.servers.database_url, f"drop database {name} with (force)")

    def _clone(self) -> str:
        name = f"test_{uuid.uuid4().hex}"
        _execute(self.servers.database_url, f"create database {name} template {self.template} strategy file_copy")
        if not self.schema:
            self._look_at(_with_database(self.servers.database_url, name))
        return name

    def _look_at(self, url: str) -> None:
        with _connect(url) as connection:
            self.schema = _text(connection, _SCHEMA)
            tables = [
                str(name)
                for (name,) in connection.execute("select tablename from pg_tables where schemaname = 'public'")
            ]
            sequences = [str(name) for (name,) in connection.execute("select sequencename from pg_sequences")]
            filled = [
                table
                for table in tables
                if connection.execute(sql.SQL("select 1 from {} limit 1").format(sql.Identifier(table))).fetchone()
            ]
        assert filled == [_KEPT], (
            f"migrations fill {filled}: what they put there would be lost with what a test puts there"
        )
        deletes = [f'delete from "{table}"' for table in tables if table != _KEPT]
        restarts = [f"select setval('\"{name}\"', 1, false)" for name in sequences]
        # Rows that are never deleted and keys of others are for the product, not for whoever tidies up.
        self.empty = "; ".join(["set session_replication_role = replica", *deletes, *restarts])

    def _make_anew(self, url: str) -> bool:
        """Whether it is as the template again."""
        try:
            with _connect(url) as connection:
                connection.execute(_OTHERS_END, [connection.info.backend_pid])
                if _text(connection, _SCHEMA) != self.schema or int(_text(connection, _PAGES)) > _MOST_PAGES:
                    return False
                connection.execute(sql.SQL(self.empty))
        except psycopg.Error:
            return False
        return True


def _text(connection: psycopg.Connection[tuple[object, ...]], query: str) -> str:
    [value] = connection.execute(sql.SQL(query)).fetchone() or [""]
    return str(value)


@pytest.fixture(scope="session")
def databases(servers: Servers, database_template: str) -> DatabasePool:
    return DatabasePool(servers, database_template)


@pytest.fixture
def database_url(databases: DatabasePool) -> Iterator[str]:
    with databases.lend() as url:
        yield url


@pytest.fixture
def settings(servers: Servers, database_url: str, tmp_path: Path) -> Settings:
    return load_settings(
        home=tmp_path / "home",
        database_url=SecretStr(database_url),
        broker_url=SecretStr(servers.broker_url),
        s3_url=SecretStr(servers.s3_url),
        s3_bucket=BUCKET,
        log_level="warning",
    )


@pytest.fixture
def services(settings: Settings) -> Iterator[Services]:
    with open_services(settings) as opened:
        opened.store.ensure_bucket()
        yield opened


@pytest.fixture
def api_key(services: Services) -> str:
    """An admin key of the default project."""
    key = f"mg_{uuid.uuid4().hex}"
    with transaction(services.sessions) as session:
        ensure_bootstrap_key(session, key)
    return key


@pytest.fixture
def project_id(services: Services, api_key: str) -> uuid.UUID:
    with transaction(services.sessions) as session:
        return session.scalars(sa.select(Project.id).where(Project.name == DEFAULT_PROJECT)).one()
