"""Jobs that the database gets in the way of are tried again; a version left unchecked is judged on request."""

import uuid
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError, NoResultFound
from sqlalchemy.orm.exc import StaleDataError

from registry.adapters import get_adapter
from registry.database import transaction
from registry.errors import JobStateConflict, NothingToDecide, VersionNotServable
from registry.gates.verdict import gate_of, verdict
from registry.promotion import run_gate
from registry.versions.records import get_version
from registry.versions.state import withdraw
from tests.workers.conftest import TRAINING, Workshop
from workers import scoring

RACE = IntegrityError(
    "INSERT INTO suite_items VALUES (%s)", {"word": "secret"}, Exception("violates a foreign key\nKey")
)


@pytest.fixture
def racing(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """To be filled: freezing a suite raises one after the other, then works."""
    left: list[Exception] = []
    freeze = scoring.suites.freeze_suite

    def raced(*arguments: Any) -> Any:
        if left:
            raise left.pop(0)
        return freeze(*arguments)

    monkeypatch.setattr(scoring.suites, "freeze_suite", raced)
    return left


def _run_gate(workshop: Workshop, number: int) -> uuid.UUID:
    with transaction(workshop.services.sessions) as session:
        adapter = get_adapter(session, workshop.project_id, "bot", lock=True)
        return run_gate(session, adapter, get_version(session, adapter, number)).id


def _verdict(workshop: Workshop, number: int) -> str:
    with transaction(workshop.services.sessions) as session:
        adapter = get_adapter(session, workshop.project_id, "bot")
        return verdict(gate_of(session, get_version(session, adapter, number)))


@pytest.mark.parametrize("race", [RACE, NoResultFound("no row was found"), StaleDataError("1 row expected")])
def test_a_job_that_a_race_broke_is_tried_again(workshop: Workshop, racing: list[Exception], race: Exception) -> None:
    workshop.add_task("yes")
    racing += [race, race]
    job_id = workshop.queue("yes")
    assert [workshop.work(job_id).state for _ in range(3)] == ["queued", "queued", "succeeded"]
    assert _verdict(workshop, 1) == "passed"
    assert [version.number for version in workshop.versions()] == [1], "trained once"
    told = [event.message for event in workshop.events(job_id) if event.level == "warning"]
    assert len([message for message in told if message.startswith("returned to the queue: ")]) == 2
    assert not [message for message in told if "secret" in message]


@pytest.mark.parametrize("promotes", [True, False])
def test_a_version_that_was_left_unchecked_is_judged_on_request(
    workshop: Workshop, racing: list[Exception], promotes: bool
) -> None:
    """And what follows is what its own job asked for."""
    workshop.add_task("yes")
    racing += [RACE] * 3
    job_id = workshop.queue_job("train_weaver", {"task": "yes", "training": TRAINING, "promote": promotes})
    assert [workshop.work(job_id).state for _ in range(3)] == ["queued", "queued", "failed"]
    assert str(workshop.job(job_id).error).endswith("violates a foreign key; tried 3 times")
    assert _verdict(workshop, 1) == "unchecked"

    judging = _run_gate(workshop, 1)
    with pytest.raises(JobStateConflict, match=f"job {judging} is to judge bot@1 and has not ended"):
        _run_gate(workshop, 1)
    done = workshop.work(judging)
    assert (done.state, (done.result or {})["gate"]) == ("succeeded", "passed")
    assert _verdict(workshop, 1) == "passed"
    assert workshop.champion() == (1 if promotes else None)
    with pytest.raises(NothingToDecide, match="the gate of bot@1 has run"):
        _run_gate(workshop, 1)


def test_no_second_job_judges_what_its_own_will(workshop: Workshop, racing: list[Exception]) -> None:
    workshop.add_task("yes")
    racing += [RACE]
    job_id = workshop.queue("yes", training={"steps": 2})
    assert workshop.work(job_id).state == "queued"
    with pytest.raises(JobStateConflict, match=f"job {job_id} is to judge bot@1"):
        _run_gate(workshop, 1)


def test_what_may_not_serve_is_not_judged(workshop: Workshop, racing: list[Exception]) -> None:
    workshop.add_task("yes")
    racing += [RACE] * 3
    job_id = workshop.queue("yes", training={"steps": 2})
    assert [workshop.work(job_id).state for _ in range(3)][-1] == "failed"
    with transaction(workshop.services.sessions) as session:
        adapter = get_adapter(session, workshop.project_id, "bot", lock=True)
        withdraw(session, get_version(session, adapter, 1), actor="test", reason="", evidence={})
    with pytest.raises(VersionNotServable, match="was withdrawn"):
        _run_gate(workshop, 1)
