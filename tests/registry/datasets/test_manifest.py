"""Manifests are part of the hash of a dataset: each kind of snapshot writes the keys that it always wrote."""

import uuid
from typing import Any

import pytest

from registry.database import transaction
from registry.datasets import reward_snapshots
from registry.datasets.manifest import JudgingTask, Manifest, TrainedPart, trained_part
from registry.job_requests import PlayedEnvironment
from registry.models import Dataset
from registry.tasks import get_task
from tests.registry.conftest import Rows, chats

COUNTED = {"new", "replayed", "replay_share", "seed", "task"}


def _dataset(manifest: dict[str, Any]) -> Dataset:
    return Dataset(project_id=uuid.uuid4(), task_id=uuid.uuid4(), content_hash="x", manifest=manifest, object_key="x")


def test_each_kind_of_snapshot_writes_its_own_keys(rows: Rows) -> None:
    items = [*chats(30, word="a", reward=1.0), *chats(30, word="a", reward=0.0, success=False)]
    rows.task("a", items)
    environment = PlayedEnvironment("textworld", {"level": 1}, 8)
    with transaction(rows.services.sessions) as session:
        task, project = get_task(session, rows.project_id, "a"), rows.project_id
        shown = rows.snapshot(session, "a").manifest
        options: dict[str, Any] = {"earlier_tasks": [], "replay_share": 0.0, "seed": 3}
        questions = reward_snapshots.question_snapshot(session, project, task, min_reward=0.5, **options).manifest
        recorded = reward_snapshots.recorded_snapshot(session, project, task, **options).manifest
        trigger = reward_snapshots.trigger_snapshot(session, project, task, [task], min_reward=0.5, seed=3).manifest
        played = reward_snapshots.environment_snapshot(
            project, task, environment, judged_by=[task], trains=TrainedPart.TRIGGER, seed=3
        ).manifest
    assert set(shown.to_json()) == COUNTED | {"buffer", "min_reward"}
    assert set(questions.to_json()) == COUNTED | {"buffer", "min_reward", "trains", "graders"}
    assert set(recorded.to_json()) == COUNTED | {"trains", "shared_turns"}
    assert set(trigger.to_json()) == COUNTED | {"trains", "graders", "min_reward"}
    assert played.to_json() == {
        "task": "a",
        "trains": "trigger",
        "environment": {"name": "textworld", "options": {"level": 1}, "items": 8},
        "held_out": [{"task": "a", "share": 0.25, "shared_turns": 0}],
        "new": 0,
        "replayed": {},
        "replay_share": 0.0,
        "seed": 3,
    }
    for manifest in (shown, questions, recorded, trigger, played):
        assert Manifest.from_json(manifest.to_json()) == manifest
    assert played.held_out == (JudgingTask("a", 0.25, 0),)


@pytest.mark.parametrize("more", [{}, {"held_out": []}, {"trains": "weaver"}, {"shared_turns": {}}, {"min_reward": 1}])
def test_what_a_stored_manifest_lacks_it_lacks_again(more: dict[str, Any]) -> None:
    stored = {"task": "a", "new": 1, "replayed": {"b": 2}, "replay_share": 0.5, "seed": 0, **more}
    assert Manifest.from_json(stored).to_json() == stored


def test_which_part_a_dataset_teaches() -> None:
    assert trained_part(_dataset({"trains": "trigger"})) == TrainedPart.TRIGGER
    for foreign in ({}, {"trains": "weaver"}, {"trains": "something newer"}):
        assert trained_part(_dataset(foreign)) == TrainedPart.WEAVER
