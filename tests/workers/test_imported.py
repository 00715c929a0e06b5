"""A version that another installation trained: checked by this one's gate on the tiny base, or on the origin's word."""

import uuid
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from registry.adapters import create_adapter, get_adapter
from registry.aliases import promote
from registry.database import transaction
from registry.errors import GateNotPassed
from registry.exports import describe_version, read_archive, write_archive
from registry.models import Job, Project, Version
from registry.version_imports import import_version
from registry.versions import gate_of, get_version
from tests.workers.conftest import Workshop
from workers.imported import check_import
from workers.runner import run


def _import(workshop: Workshop, folder: Path, project_id: uuid.UUID, name: str) -> tuple[Version, Job]:
    """Version 1 of `bot` into a new adapter of a project, as another installation would."""
    services = workshop.services
    with transaction(services.sessions) as session:
        bot = get_adapter(session, workshop.project_id, "bot")
        version = get_version(session, bot, 1)
        description, key, memory = describe_version(session, version), version.artifact_key, bot.memory
        create_adapter(
            session,
            project_id,
            name=name,
            base_model=bot.base_model,
            base_revision=bot.base_revision,
            memory=memory,
        )
    write_archive(services.store, description, key, folder / "one.tar")
    archive = read_archive(folder / "one.tar", folder / "read", max_bytes=100_000_000)
    target = f"projects/{project_id}/artifacts/{description['artifact_hash']}"
    services.store.put_folder(target, archive.folder)
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, project_id, name, lock=True)
        return import_version(session, adapter, archive.description, archive.report, key=target, actor="test")


def _check(workshop: Workshop, job: Job) -> dict[str, Any]:
    model = workshop.handlers["train_weaver"].keywords["model"]  # type: ignore[attr-defined]  # a partial
    run(workshop.services, {"check_import": partial(check_import, model=model)}, job.id, "test-worker")
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
