"""What `memgen doctor` sees of real servers, and what it says of workers by their answers."""

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest
from pydantic import SecretStr

from api.cli.diagnosis.findings import Diagnosis, Installation
from api.cli.diagnosis.servers import CHECKS, diagnose_workers
from api.local.health import libpq_url
from registry.settings import Settings
from tests.fixtures_database import clone_database
from tests.services import Servers
from workers.queue import WorkerAnswer

GPU = WorkerAnswer("gpu@a", "0.1.0+src.1", ("gpu",), 100.0)
UPSTREAM = WorkerAnswer("upstream@a", "0.1.0+src.1", ("upstream",), 100.0)
DEFAULT = WorkerAnswer("default@a", "0.1.0+src.1", ("default", "celery"), 100.0, 3.0)


def _look(name: str, settings: Settings) -> dict[str, Diagnosis]:
    [check] = [each for each in CHECKS if each.name == name]
    return {each.check: each for each in check.look(Installation(settings, settings))}


def _states(found: dict[str, Diagnosis]) -> dict[str, str]:
    return {name: each.state for name, each in found.items()}


def test_a_database_that_is_right(settings: Settings) -> None:
    found = _look("database", settings)
    assert _states(found) == dict.fromkeys(("database", "clock", "migrations", "recording"), "ok")
    assert found["database"].found.startswith("PostgreSQL 18")


@pytest.fixture
def own_database(servers: Servers, database_template: str) -> Iterator[str]:
    """One that may be spoilt: the lent ones keep their revision."""
    with clone_database(servers, database_template) as url:
        yield url


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("update alembic_version set version_num = '0001'", "the database is at 0001, this code at "),
        ("update alembic_version set version_num = 'zzzz'", "at zzzz, which this code does not know"),
        ("delete from alembic_version", "never migrated"),
        ("drop table alembic_version", "never migrated"),
    ],
)
def test_a_database_of_another_revision(settings: Settings, own_database: str, statement: str, says: str) -> None:
    with psycopg.connect(libpq_url(own_database), autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[call-overload]  # of this test
    found = _look("database", settings.model_copy(update={"database_url": SecretStr(own_database)}))
    assert _states(found) == {"database": "ok", "clock": "ok", "migrations": "fail"}
    assert says in found["migrations"].found


def test_a_store_that_is_right_and_one_without_the_bucket(settings: Settings, services: object) -> None:
    assert _states(_look("object store", settings)) == {"object store": "ok", "objects": "ok"}
    without = _look("object store", settings.model_copy(update={"s3_bucket": "nobody-made-it"}))
    assert _states(without) == {"object store": "fail"}
    assert "nobody-made-it" in without["object store"].found
    again = _look("object store", settings.model_copy(update={"s3_bucket": "nobody-made-it"}))
    assert _states(again) == {"object store": "fail"}, "looking makes none"


def test_a_broker_without_workers(settings: Settings) -> None:
    found = _look("broker", settings)
    assert _states(found) == {"broker": "ok", "workers": "fail"}
    assert found["workers"].found == "none answers"


def test_an_address_where_nobody_is(settings: Settings) -> None:
    dead = {
        "database_url": SecretStr("postgresql+psycopg://memgen:very-secret@127.0.0.1:1/memgen"),
        "broker_url": SecretStr("redis://:very-secret@127.0.0.1:1/0"),
        "s3_url": SecretStr("http://key:very-secret@127.0.0.1:1"),
    }
    away = settings.model_copy(update=dead)
    for check in CHECKS:
        own = list(check.look(Installation(away, away)))
        assert [(each.check, each.state) for each in own] == [(check.name, "fail")]
        assert "correct the URL" in own[0].advice
        assert "very-secret" not in own[0].found
        nobodys = away.model_copy(update=dict.fromkeys(dead))
        [started] = check.look(Installation(away, nobodys))
        assert "`memgen up` starts it" in started.advice, "it was not the user who named it"
        [unset] = check.look(Installation(nobodys, nobodys))
        assert unset.state == "skip"


def _of_workers(settings: Settings, *workers: WorkerAnswer) -> dict[str, Diagnosis]:
    return {each.check: each for each in diagnose_workers(workers, settings, code="0.1.0+src.1")}


def test_workers_that_are_right(settings: Settings) -> None:
    found = _of_workers(settings, GPU, UPSTREAM, DEFAULT)
    assert _states(found) == {"workers": "ok", "code": "ok", "beat": "ok"}
    assert found["beat"].found == "ticked 3 s ago"


def test_a_queue_that_nobody_takes(settings: Settings) -> None:
    found = _of_workers(settings, UPSTREAM, DEFAULT)
    assert _states(found) == {"workers": "fail", "code": "ok", "beat": "ok"}
    assert found["workers"].found == "none takes jobs of queue gpu"
    assert "beat" not in _of_workers(settings, GPU, UPSTREAM), "nobody would see it"


def test_workers_of_other_code(settings: Settings) -> None:
    newer = _of_workers(settings, replace(GPU, code="0.1.0+src.2"), UPSTREAM, DEFAULT)
    assert _states(newer) == {"workers": "ok", "code": "fail", "beat": "ok"}
    assert "gpu@a runs 0.1.0+src.2; here is 0.1.0+src.1" in newer["code"].found
    older = _of_workers(settings, WorkerAnswer("gpu@a", None), UPSTREAM, DEFAULT)
    assert _states(older)["workers"] == "ok", "it does not say which queues it takes"
    assert "gpu@a runs an older release" in older["code"].found


@pytest.mark.parametrize(
    ("seconds_up", "since_tick", "state"),
    [(1000.0, 59.0, "ok"), (1000.0, 61.0, "fail"), (1000.0, None, "fail"), (20.0, None, "warn"), (20.0, 1.0, "ok")],
)
def test_a_beat_that_ticks_or_not(settings: Settings, seconds_up: float, since_tick: float | None, state: str) -> None:
    default = replace(DEFAULT, seconds_up=seconds_up, seconds_since_tick=since_tick)
    assert _of_workers(settings, GPU, UPSTREAM, default)["beat"].state == state
    slow = settings.model_copy(update={"tick_interval_seconds": 1000.0})
    assert _of_workers(slow, GPU, UPSTREAM, default)["beat"].state != "fail", "it ticks that seldom"
