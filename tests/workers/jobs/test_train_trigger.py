"""The job `train_trigger` on real servers with a tiny base: a memory that helps one task and hurts another."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from registry.database import transaction
from registry.models import Dataset, Gate, Version
from registry.versions.ancestry import learned_tasks
from tests.workers.conftest import Workshop, answers

NOT_YES = {"kind": "regex", "pattern": "^(?!yes)"}
"""Rewards whatever the memory does not say."""
TRIGGER = {
    "steps": 20,
    "items_per_step": 8,
    "group_size": 4,
    "max_new_tokens": 4,
    "learning_rate": 1e-2,
    "head_learning_rate": 5e-2,
    "seed": 5,  # so few steps leave some seeds with a trigger that never fires
}


@pytest.fixture
def asking(workshop: Workshop) -> Workshop:
    """A workshop whose adapter has a trigger to be learned, asked at the prompt's end alone."""
    with transaction(workshop.services.sessions) as session:
        session.execute(
            sa.text("""update adapters set memory = memory || '{"trigger": "head", "max_insertions": 0}'""")
        )
    workshop.add_task("yes")
    workshop.add_task("other", answers("other"), NOT_YES)
    return workshop


def files_of(workshop: Workshop, version: Version, folder: Path) -> dict[str, bytes]:
    workshop.services.store.get_folder(version.artifact_key, folder)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def teach(workshop: Workshop, tasks: list[str], **training: Any) -> Any:
    params = {"parent": 1, "tasks": tasks, "training": {**TRIGGER, **training}}
    return workshop.work(workshop.queue_job("train_trigger", params))


def test_an_untrained_trigger_does_not_keep_the_memory_silent(asking: Workshop) -> None:
    job = asking.work(asking.queue("yes"))
    assert job.result is not None, job.error
    assert job.result["scores"] == {"base": {"yes": 0.0}, "v1": {"yes": 1.0}}
    [version] = asking.versions()
    assert version.report["trained"] == ["weaver"]
    [warning] = [e for e in asking.events(job.id) if e.level == "warning"]
    assert warning.message.startswith("the trigger of bot@1 is not trained yet")


def test_a_trained_trigger_is_a_version_with_the_same_weaver(asking: Workshop, tmp_path: Path) -> None:
    asking.work(asking.queue("yes"))
    job = teach(asking, ["yes", "other"])
    assert (job.state, job.error) == ("succeeded", None)
    v1, v2 = asking.versions()
    assert (v2.parent_id, v2.report["trained"], v2.report["flags"]) == (v1.id, ["weaver", "trigger"], [])
    assert set(v2.report["by_task"]) == {"yes", "other"}
    assert v2.report["by_task"]["other"]["rate"] < v2.report["by_task"]["yes"]["rate"]

    before, after = files_of(asking, v1, tmp_path / "v1"), files_of(asking, v2, tmp_path / "v2")
    assert before["weaver/adapter_model.safetensors"] == after["weaver/adapter_model.safetensors"]
    assert before["optimizer.safetensors"] == after["optimizer.safetensors"]
    assert before["memory.safetensors"] != after["memory.safetensors"]

    with transaction(asking.services.sessions) as session:
        v2 = session.merge(v2)
        assert [task.name for task in learned_tasks(session, v2)] == ["yes"]
        gate = session.scalars(sa.select(Gate).where(Gate.version_id == v2.id)).one()
        assert gate.champion_id == v1.id
        assert [(c["task"], c["new"]) for c in gate.comparisons] == [("yes", False)]
        dataset = session.get_one(Dataset, v2.dataset_id)
        assert (dataset.manifest["trains"], set(dataset.manifest["replayed"])) == ("trigger", {"yes", "other"})
    told = [e.message for e in asking.events(job.id)]
    assert any(message.startswith("other: the trigger wove at") for message in told)
    assert not [e for e in asking.events(job.id) if e.level == "warning"]
    progress = [e.data for e in asking.events(job.id) if (e.level, e.message) == ("progress", "train")][-1]
    assert {"reward", "penalised_reward", "groups_skipped", "invoked", "entropy"} <= set(progress)


def test_a_trigger_that_settles_on_always_is_flagged_and_rejected(asking: Workshop) -> None:
    asking.work(asking.queue("yes"))
    job = teach(asking, ["yes"], penalty=0.0, head_learning_rate=0.5)
    assert job.result is not None, job.error
    v2 = asking.versions()[1]
    assert any(flag.startswith("the trigger always fires") for flag in v2.report["flags"])
    assert (job.result["gate"], asking.champion()) == ("rejected", 1)


def test_the_weavers_next_training_keeps_the_trigger(asking: Workshop) -> None:
    asking.work(asking.queue("yes"))
    teach(asking, ["yes", "other"], steps=3)
    job = asking.work(asking.queue("yes", parent=2, training={"steps": 2}))
    assert job.state == "succeeded", job.error
    assert asking.versions()[2].report["trained"] == ["weaver", "trigger"]
    assert any(e.message.startswith("weights and optimizer go on from bot@2") for e in asking.events(job.id))


def test_tasks_without_reward_are_left_out(asking: Workshop) -> None:
    asking.add_task("text", answers("text"), {"kind": "likelihood"})
    asking.work(asking.queue("yes"))
    job = teach(asking, ["yes", "text"], steps=1)
    assert job.state == "succeeded", job.error
    warnings = [e.message for e in asking.events(job.id) if e.level == "warning"]
    assert warnings[0] == "task 'text' is left out: its grader 'likelihood' rewards no answers"
    assert set(asking.versions()[1].report["by_task"]) == {"yes"}
