"""A fresh, migrated database for each test, cloned from a template; real commits, nothing shared."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from registry.database import transaction, upgrade
from registry.keys import DEFAULT_PROJECT, ensure_bootstrap_key
from registry.models import Project
from registry.settings import Settings, load_settings
from registry.wiring import Services, open_services
from tests.services import BUCKET, Servers

TEMPLATE = "memgen_template"


def _with_database(url: str, name: str) -> str:
    return sa.make_url(url).set(database=name).render_as_string(hide_password=False)


def _execute(url: str, statement: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()


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
    _execute(servers.database_url, f"create database {name} template {template}")
    yield _with_database(servers.database_url, name)
    _execute(servers.database_url, f"drop database {name} with (force)")


@pytest.fixture
def database_url(servers: Servers, database_template: str) -> Iterator[str]:
    with clone_database(servers, database_template) as url:
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
