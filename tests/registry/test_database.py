"""The schema: migrations match the models, and immutable rows are."""

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy.exc import DBAPIError

from registry.database import MIGRATIONS, transaction
from registry.models import Base
from tests.registry.conftest import Rows

IMMUTABLE = (
    "suites",
    "suite_items",
    "datasets",
    "dataset_items",
    "versions",
    "evaluations",
    "gates",
    "alias_moves",
    "gate_decisions",
    "adapter_changes",
    "route_arms",
    "route_changes",
    "exposures",
    "feedback",
    "shadow_answers",
    "schedule_runs",
    "schedule_changes",
    "version_changes",
    "version_imports",
    "version_import_tasks",
    "deletions",
    "deletion_datasets",
)


def test_migrations_give_the_models_schema(database_url: str) -> None:
    engine = sa.create_engine(database_url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


def test_migrations_go_down_and_up_again(database_url: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["database_url"] = database_url
    command.downgrade(config, "base")
    engine = sa.create_engine(database_url)
    assert sa.inspect(engine).get_table_names() == ["alembic_version"]
    command.upgrade(config, "head")
    assert set(sa.inspect(engine).get_table_names()) >= {"versions", "jobs"}
    engine.dispose()


def test_immutable_rows_can_not_be_changed(rows: Rows) -> None:
    rows.task("a")
    version = rows.version("a")
    with (
        pytest.raises(DBAPIError, match="rows of versions are immutable"),
        transaction(rows.services.sessions) as session,
    ):
        session.execute(sa.text("update versions set artifact_hash = 'forged' where id = :id"), {"id": version.id})


def test_every_immutable_table_has_its_trigger(database_url: str) -> None:
    engine = sa.create_engine(database_url)
    with engine.connect() as connection:
        found = connection.scalars(
            sa.text("select event_object_table from information_schema.triggers where trigger_name = 'immutable'")
        ).all()
    engine.dispose()
    assert sorted(found) == sorted(IMMUTABLE)
