"""The schema: migrations match the models, and immutable rows are."""

from dataclasses import replace

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import DBAPIError

from registry.database import migration_config, transaction
from registry.models import Adapter, Base, Version
from registry.serving.routes import Terms
from tests.registry.conftest import Rows, refused_as_immutable
from tests.registry.routed import make_routed

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
    "trajectory_rewards",
    "schedule_runs",
    "schedule_changes",
    "loop_changes",
    "version_changes",
    "version_imports",
    "version_import_tasks",
    "version_import_datasets",
    "deletions",
    "deletion_datasets",
)


def test_migrations_give_the_models_schema(database_url: str) -> None:
    engine = sa.create_engine(database_url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


def test_migrations_go_down_and_up_again(database_url: str) -> None:
    config = migration_config(database_url)
    command.downgrade(config, "base")
    engine = sa.create_engine(database_url)
    assert sa.inspect(engine).get_table_names() == ["alembic_version"]
    command.upgrade(config, "head")
    assert set(sa.inspect(engine).get_table_names()) >= {"versions", "jobs"}
    engine.dispose()


def test_going_back_from_promoted_canaries_they_have_ended(rows: Rows, database_url: str) -> None:
    """Revision 0006 down to 0005 and up again: the older code knows neither the state nor the settings."""
    routed = make_routed(rows)
    routed.start_canary(2, terms=Terms(promotion="better"))
    routed.rate_sessions(lambda label, number: float(label != "bot@1"), 60)
    assert routed.route(1).state == "promoted"
    config = migration_config(database_url)
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(sa.text("update adapters set gate_policy = 'canary'"))
    command.downgrade(config, "0005")
    with engine.connect() as connection:
        assert connection.scalar(sa.text("select state from routes")) == "ended"
        kinds = connection.scalars(sa.text("select kind from route_changes order by seq")).all()
    assert kinds == ["started", "ended"]
    for statement in ("update routes set state = 'live'", "update route_changes set kind = 'ended'"):
        with pytest.raises(DBAPIError), engine.begin() as connection:
            connection.execute(sa.text(statement))
    command.upgrade(config, "head")
    with engine.connect() as connection:
        # Who had chosen policy `canary` before was told that promoting is theirs.
        found = connection.execute(sa.text("select canary_promotion, canary_margin from adapters")).one()
        assert tuple(found) == ("never", 0.05)
        assert connection.scalar(sa.text("select promotion from routes")) == "never"
    engine.dispose()


def test_an_adapter_of_the_first_release_says_what_its_artifacts_hold(rows: Rows, database_url: str) -> None:
    """Revision 0009: 0002 left to a default, since changed, how many latents an insertion inside an answer has."""
    with transaction(rows.services.sessions) as session:
        replace(rows, adapter="new").make_adapter(session, memory={"inference_latents": 3})
        replace(rows, adapter="old").make_adapter(session, memory={"latents": 2})
    config = migration_config(database_url)
    command.downgrade(config, "0008")
    command.upgrade(config, "head")
    with transaction(rows.services.sessions) as session:
        found = {row.name: row.memory for row in session.execute(sa.select(Adapter.name, Adapter.memory))}
    assert found["new"] == {"inference_latents": 3}
    assert found["old"] == {"latents": 2, "inference_latents": 8}


def test_versions_say_their_form_from_its_migration_on(rows: Rows, database_url: str) -> None:
    rows.task("a")
    for form in (None, "lora"):
        rows.version("a", form=form)
    command.downgrade(migration_config(database_url), "0029")
    command.upgrade(migration_config(database_url), "head")
    with transaction(rows.services.sessions) as session:
        assert list(session.scalars(sa.select(Version.form).order_by(Version.number))) == ["cache", "lora"]


def test_immutable_rows_can_not_be_changed(rows: Rows) -> None:
    rows.task("a")
    version = rows.version("a")
    with (
        refused_as_immutable("versions"),
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
