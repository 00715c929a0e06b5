"""A version that another installation trained: checked by this one's gate on the tiny base, or on the origin's word."""

import json
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from registry import jobs
from registry.adapters import create_adapter, get_adapter
from registry.database import transaction
from registry.errors import GateNotPassed
from registry.gates.verdict import gate_of
from registry.job_requests import TrainWeaver
from registry.models import Adapter, Job, Project, Version
from registry.serving.aliases import promote
from registry.transfer.admission import import_version
from registry.transfer.archive import describe_version, read_archive, write_archive
from registry.versions.ancestry import learned_tasks
from registry.versions.artifacts import artifact_beside
from registry.versions.records import get_version
from tests.workers.conftest import TRAINING, Workshop, answers
from workers.jobs import check_import, train_weaver
from workers.model import Model
from workers.runner import run


def _import(workshop: Workshop, folder: Path, project_id: uuid.UUID, name: str, number: int = 1) -> tuple[Version, Job]:
    """A version of `bot` into a new adapter of a project, as another installation would."""
    services = workshop.services
    with transaction(services.sessions) as session:
        bot = get_adapter(session, workshop.project_id, "bot")
        version = get_version(session, bot, number)
        description, key, memory = describe_version(session, version), version.artifact_key, bot.memory
        create_adapter(
            session,
            project_id,
            name=name,
            base_model=bot.base_model,
            base_revision=bot.base_revision,
            strategy=bot.strategy,
            memory=memory,
        )
    write_archive(services.store, description, key, folder / "one.tar")
    archive = read_archive(folder / "one.tar", folder / "read", max_bytes=100_000_000)
    target = f"projects/{project_id}/artifacts/{description['artifact_hash']}"
    services.store.put_folder(target, archive.folder)
    for part, files in archive.parts.items():
        services.store.put_folder(artifact_beside(target, part), files)
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, project_id, name, lock=True)
        return import_version(session, adapter, archive.description, archive.report, key=target, actor="test")


def _check(workshop: Workshop, job: Job, model: Model | None = None) -> dict[str, Any]:
    model = model or workshop.handlers["train_weaver"].keywords["model"]  # type: ignore[attr-defined]  # a partial
    run(workshop.services, {"check_import": partial(check_import.run, model=model)}, job.id, "test-worker")
    done = workshop.job(job.id)
    assert done.state == "succeeded", done.error
    assert done.result is not None
    return done.result


def test_it_passes_by_its_own_items_or_on_its_origins_word(workshop: Workshop, tmp_path: Path) -> None:
    workshop.add_task("yes")
    trained = workshop.work(workshop.queue("yes"))
    assert trained.state == "succeeded", trained.error
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()

    version, job = _import(workshop, here, workshop.project_id, "copy")
    with transaction(workshop.services.sessions) as session:
        adapter, row = (
            get_adapter(session, workshop.project_id, "copy", lock=True),
            session.get_one(Version, version.id),
        )
        with pytest.raises(GateNotPassed):
            promote(session, adapter, "champion", row, actor="test", reason="")
    checked = _check(workshop, job)
    assert trained.result is not None
    assert (checked["gate"], checked["scores"]["v1"]) == (trained.result["gate"], trained.result["scores"]["v1"])

    with transaction(workshop.services.sessions) as session:
        other = Project(id=uuid.uuid4(), name="elsewhere")
        session.add(other)
    version, job = _import(workshop, there, other.id, "bot")
    assert _check(workshop, job) == {"version": 1, "gate": trained.result["gate"], "scores": {}}
    with transaction(workshop.services.sessions) as session:
        gate = gate_of(session, session.get_one(Version, version.id))
        assert gate is not None
        assert gate.reasons[0].startswith("not checked here: this installation has no held-out items of yes")


def test_it_is_judged_on_the_items_that_are_here(workshop: Workshop, tmp_path: Path) -> None:
    for word in ("yes", "nope"):
        workshop.add_task(word)
    for task, parent in (("yes", None), ("nope", 1)):
        done = workshop.work(workshop.queue(task, parent=parent))
        assert done.state == "succeeded", done.error
    project = Project(id=uuid.uuid4(), name="elsewhere")
    with transaction(workshop.services.sessions) as session:
        session.add(project)
    Workshop(workshop.services, project.id, {}).add_task("nope")
    version, job = _import(workshop, tmp_path, project.id, "bot", 2)
    checked = _check(workshop, job)
    assert (checked["gate"], checked["scores"]) == ("passed", {"base": {"nope": 0.0}, "v1": {"nope": 1.0}})
    with transaction(workshop.services.sessions) as session:
        gate = gate_of(session, session.get_one(Version, version.id))
        assert gate is not None
        assert [c["task"] for c in gate.comparisons] == ["nope"]
        assert gate.reasons[1:] == ["yes: not compared; this installation has no held-out items of it"]


def test_an_isolated_version_is_checked_with_every_part_and_trained_on_from(workshop: Workshop, tmp_path: Path) -> None:
    services, store = workshop.services, workshop.services.store
    with transaction(services.sessions) as session:
        adapter = session.query(Adapter).one()
        adapter.strategy, adapter.replay_share = "isolated", 0.0
    for word in ("yes", "nope"):
        workshop.add_task(word, answers(word, 60))
    for task, parent in (("yes", None), ("nope", 1)):
        done = workshop.work(workshop.queue(task, parent=parent, training={"steps": 5}))
        assert done.state == "succeeded", done.error
    first, second = workshop.versions()
    project = Project(id=uuid.uuid4(), name="elsewhere")
    with transaction(services.sessions) as session:
        session.add(project)
    imported, check = _import(workshop, tmp_path, project.id, "bot", 2)

    # A worker that has none of it in memory, and a part that was spoiled on its way into the store.
    model, file = Model(services), f"{artifact_beside(imported.artifact_key, first.artifact_hash)}/memory.safetensors"
    whole = store.get(file)
    store.put(file, b"rotten")
    run(services, {"check_import": partial(check_import.run, model=model)}, check.id, "test-worker")
    refused = workshop.job(check.id)
    assert refused.state == "failed"
    assert refused.error is not None
    assert "memory.safetensors: sha256 is" in refused.error

    store.put(file, whole)
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, project.id, "bot")
        again = jobs.create_job(session, project.id, jobs.request_of(check), adapter)
    assert _check(workshop, again, model)["version"] == 1

    there = Workshop(services, project.id, {"train_weaver": partial(train_weaver.run, model=model)})
    there.add_task("okay", answers("okay", 60))
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, project.id, "bot")
        more = jobs.create_job(session, project.id, TrainWeaver("okay", 1, training={**TRAINING, "steps": 2}), adapter)
    trained = there.work(more.id)
    assert trained.state == "succeeded", trained.error
    with transaction(services.sessions) as session:
        child = get_version(session, get_adapter(session, project.id, "bot"), 2)
        assert [task.name for task in learned_tasks(session, child)] == ["yes", "nope", "okay"]
    described = json.loads(store.get(f"{child.artifact_key}/isolated.json"))
    assert described["others"] == {"yes": first.artifact_hash, "nope": second.artifact_hash}
    Model(services).check_memories(child)
