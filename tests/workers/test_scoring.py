"""What a version is judged beside while others move: the champion of the verdict's moment, and all that it knows."""

import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from memgen.evaluation.accuracy import ReadItem
from registry.adapters import get_adapter
from registry.database import transaction
from registry.gates.evaluations import record_evaluation, subject_of
from registry.gates.verdict import gate_of
from registry.models import Adapter, Gate, Task, Version
from registry.serving.aliases import promote
from registry.versions.records import get_version
from registry.versions.state import withdraw
from tests.workers.conftest import TRAINING, Workshop
from workers import scoring
from workers.model import Model
from workers.runner import Running

R = dict[str, dict[str, float]]
"""Scores by subject and task; what is absent is 0."""


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> R:
    """To be filled: evaluations find what stands here instead of asking the model."""
    table: R = {}

    def look_up(
        running: Running,
        model: Model,
        adapter: Adapter,
        subject: Version | None,
        task: Task,
        suite_id: uuid.UUID,
        items: Sequence[ReadItem],
    ) -> float:
        score = table.get(f"v{subject.number}" if subject else "base", {}).get(task.name, 0.0)
        answers = [{"score": score, "answer": ""}] * len(items)
        with transaction(running.services.sessions) as session:
            who = subject_of(adapter, subject)
            record_evaluation(session, who, suite_id, score=score, items=answers, seconds=0.0)
        return score

    monkeypatch.setattr(scoring, "_score", look_up)
    return table


def _before_the_first_verdict(monkeypatch: pytest.MonkeyPatch, number: int, happens: Callable[[], None]) -> None:
    """Between the scores of version `number` and its verdict."""
    judge, seen = scoring._judge, []

    def judge_late(running: Running, version_id: uuid.UUID, *more: Any) -> scoring.GateOutcome | None:
        with transaction(running.services.sessions) as session:
            mine = session.get_one(Version, version_id).number == number
        if mine and not seen:
            seen.append(version_id)
            happens()
        return judge(running, version_id, *more)

    monkeypatch.setattr(scoring, "_judge", judge_late)


def _train(workshop: Workshop, task: str, parent: int | None = None, *, moves: bool = True) -> dict[str, Any]:
    params = {"task": task, "parent": parent, "promote": moves, "training": {**TRAINING, "steps": 4}}
    done = workshop.work(workshop.queue_job("train_weaver", params))
    assert done.result is not None, done.error
    return done.result


def _gate(workshop: Workshop, number: int) -> Gate:
    with transaction(workshop.services.sessions) as session:
        gate = gate_of(session, get_version(session, get_adapter(session, workshop.project_id, "bot"), number))
        assert gate is not None
        return gate


def test_a_champion_that_moves_meanwhile_brings_its_tasks_along(
    workshop: Workshop, scored: R, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 3 was trained from 1 and never saw what 2 learned, which becomes champion while 3 is judged."""
    scored |= {"v1": {"yes": 1.0}, "v2": {"yes": 1.0, "nope": 1.0}, "v3": {"yes": 1.0, "okay": 1.0}}
    for task in ("yes", "nope", "okay"):
        workshop.add_task(task)
    assert _train(workshop, "yes")["gate"] == "passed"
    assert _train(workshop, "nope", 1, moves=False)["gate"] == "passed"

    def move() -> None:
        with transaction(workshop.services.sessions) as session:
            adapter = get_adapter(session, workshop.project_id, "bot", lock=True)
            promote(session, adapter, "champion", get_version(session, adapter, 2), actor="somebody", reason="")

    _before_the_first_verdict(monkeypatch, 3, move)
    result = _train(workshop, "okay", 1)
    assert (result["gate"], workshop.champion()) == ("rejected", 2)
    assert result["scores"]["v3"] == {"yes": 1.0, "okay": 1.0, "nope": 0.0}
    gate = _gate(workshop, 3)
    assert {c["task"]: c["passed"] for c in gate.comparisons} == {"yes": True, "okay": True, "nope": False}
    assert gate.champion_id == workshop.versions()[1].id


def test_a_champion_that_is_withdrawn_meanwhile_is_no_longer_compared_with(
    workshop: Workshop, scored: R, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored |= {"v1": {"yes": 1.0}, "v2": {"yes": 1.0}}
    workshop.add_task("yes")
    assert _train(workshop, "yes")["gate"] == "passed"

    def take_away() -> None:
        with transaction(workshop.services.sessions) as session:
            adapter = get_adapter(session, workshop.project_id, "bot", lock=True)
            withdraw(session, get_version(session, adapter, 1), actor="somebody", reason="", evidence={})

    _before_the_first_verdict(monkeypatch, 2, take_away)
    assert (_train(workshop, "yes")["gate"], workshop.champion()) == ("passed", 2)
    gate = _gate(workshop, 2)
    assert gate.champion_id is None
    assert gate.reasons[1].startswith("compared with the bare base, because the champion may not serve: bot@1 was")
