"""Analyses are found by their jobs, kept as long as one names them, and gone with what they had read."""

import json
import tarfile
import uuid
from datetime import timedelta
from pathlib import Path

import pytest

from registry import jobs
from registry.adapters import get_adapter
from registry.clock import utc_now
from registry.database import transaction
from registry.errors import AnalysisNotFound, VersionNotServable
from registry.job_requests import AnalyzeVersion, TrainWeaver
from registry.models import Job
from registry.retention.garbage import collect_garbage
from registry.retention.holds import holds_of
from registry.versions.analyses import analysis_folder, folder_of_job, newest_analysis, pack_analysis, read_analysis
from registry.versions.records import get_version
from registry.versions.state import check_analyzable, locked_state, withdraw
from tests.registry.analyzed import analyze
from tests.registry.conftest import Rows
from tests.registry.deleting import delete, finish
from tests.registry.stored_versions import trajectories


def _queue(rows: Rows, version: int = 1, against: int | None = None) -> uuid.UUID:
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot")
        request = AnalyzeVersion(version, ("a",), against=against)
        return jobs.create_job(session, rows.project_id, request, adapter).id


def _folder(rows: Rows, job_id: uuid.UUID) -> str:
    with transaction(rows.services.sessions) as session:
        return folder_of_job(session.get_one(Job, job_id))


def test_the_newest_one_that_came_to_its_end_counts(rows: Rows) -> None:
    rows.task("a")
    for _ in range(2):
        rows.version("a")
    with transaction(rows.services.sessions) as session:
        version = get_version(session, get_adapter(session, rows.project_id, "bot"), 1)
        with pytest.raises(AnalysisNotFound, match="memgen analyze bot@1"):
            newest_analysis(session, version)
    analyze(rows.services, rows.project_id)
    newest = analyze(rows.services, rows.project_id, latents=31)
    analyze(rows.services, rows.project_id, version=2)
    waiting = _queue(rows)
    with transaction(rows.services.sessions) as session:
        assert newest_analysis(session, version).id == newest
        assert json.loads(read_analysis(rows.services.store, _folder(rows, newest)))["latents"] == 31
        with pytest.raises(AnalysisNotFound, match="is queued"):
            folder_of_job(session.get_one(Job, waiting))
        training = jobs.create_job(session, rows.project_id, TrainWeaver("a"))
        with pytest.raises(AnalysisNotFound, match="of kind train_weaver"):
            folder_of_job(training)


def test_all_files_are_packed(rows: Rows, tmp_path: Path) -> None:
    folder = _folder(rows, analyze(rows.services, rows.project_id))
    pack_analysis(rows.services.store, folder, tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert tar.getnames() == ["analysis.json", "items.jsonl", "latents.safetensors"]
        latents = tar.extractfile("latents.safetensors")
        assert latents is not None
        assert latents.read() == b"latents"
    with pytest.raises(AnalysisNotFound):
        pack_analysis(rows.services.store, "projects/none", tmp_path / "b.tar")


def test_garbage_is_what_no_job_names(rows: Rows) -> None:
    store, kept = rows.services.store, _folder(rows, analyze(rows.services, rows.project_id))
    at_work, ended = (analysis_folder(rows.project_id, str(_queue(rows))) for _ in range(2))
    with transaction(rows.services.sessions) as session:
        jobs.request_cancel(session, rows.project_id, uuid.UUID(ended.rpartition("/")[2]))
    nobody = analysis_folder(rows.project_id, "ab" * 32)
    for folder in (at_work, ended, nobody):
        store.put(f"{folder}/latents/items.jsonl", b"")
    removed = collect_garbage(
        rows.services.sessions,
        store,
        rows.project_id,
        now=utc_now() + timedelta(hours=2),
        grace=timedelta(hours=1),
    )
    assert {each.key for each in removed} == {f"{folder}/latents/items.jsonl" for folder in (ended, nobody)}
    assert read_analysis(store, kept)


def test_an_analysis_goes_with_a_trajectory_that_it_read(rows: Rows) -> None:
    rows.task("a")
    first, second = trajectories(rows, held_out=True)[:2]
    both = _folder(rows, analyze(rows.services, rows.project_id, items=[first.id, second.id]))
    other = _folder(rows, analyze(rows.services, rows.project_id, items=[second.id], latents=31))
    at_work = analysis_folder(rows.project_id, str(_queue(rows)))
    store = rows.services.store
    store.put(f"{at_work}/items/items.jsonl", json.dumps({"item": str(first.id)}).encode())
    store.put(f"{at_work}/latents/latents.safetensors", b"latents")
    finish(rows, delete(rows, "trajectory", str(first.id)))
    left = {found.key for found in store.list(f"projects/{rows.project_id}/analyses/")}
    assert left == {f"{other}/{name}" for name in ("analysis.json", "items.jsonl", "latents.safetensors")}
    with pytest.raises(AnalysisNotFound, match="was deleted"):
        read_analysis(store, both)


def test_a_version_that_is_looked_into_is_held(rows: Rows) -> None:
    rows.task("a")
    first, second = rows.version("a"), rows.version("a")
    _queue(rows, second.number, against=first.number)
    with transaction(rows.services.sessions) as session:
        holds = holds_of(session, get_adapter(session, rows.project_id, "bot"))
    assert {version.id: [hold.kind for hold in holds.get(version.id, [])] for version in (first, second)} == {
        first.id: ["job"],
        second.id: ["job"],
    }


def test_what_nobody_may_look_into(rows: Rows) -> None:
    rows.task("a")
    for _ in range(3):
        rows.version("a")
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot")
        archived, withdrawn, purged = (get_version(session, adapter, number) for number in (1, 2, 3))
        locked_state(session, archived).archived_at = utc_now()
        check_analyzable(session, archived)
        withdraw(session, withdrawn, actor="test", reason="", evidence={})
        with pytest.raises(VersionNotServable, match="not to be looked into"):
            check_analyzable(session, withdrawn)
        locked_state(session, purged).purged_at = utc_now()
        with pytest.raises(VersionNotServable, match="import its archive"):
            check_analyzable(session, purged)
