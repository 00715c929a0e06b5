"""Versions with bytes in the store and scores on a suite, for tests of what is kept and deleted."""

import hashlib
import io
import json
import tarfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from registry import jobs
from registry.adapters import create_adapter, get_adapter
from registry.database import transaction
from registry.datasets import snapshots
from registry.datasets.suites import freeze_suite, suite_trajectories
from registry.gates.evaluations import record_evaluation, subject_of
from registry.gates.gate import GateTerms, compare, record_gate
from registry.job_requests import TrainWeaver
from registry.models import Project, Trajectory, Version
from registry.retention.policy import purge
from registry.tasks import get_task
from registry.transfer.admission import Imported, admit
from registry.transfer.archive import Archive, describe_version, read_archive, write_archive
from registry.versions.artifacts import artifact_beside, artifact_key
from registry.versions.records import get_version, register_version
from tests.registry.conftest import Rows


def artifact_files(
    text: str, others: Mapping[str, str] | None = None, more: Mapping[str, bytes] | None = None
) -> dict[str, bytes]:
    """A memory's folder as far as the registry looks into it; with `others`, of one that has a memory per task; with
    `more` files."""
    files = {
        "memory.json": json.dumps({"base_revision": "r1", "base_identity": {"chat_template": "c1"}}).encode(),
        "memory.safetensors": text.encode(),
        "weaver/adapter_model.safetensors": b"weights",
        "report.json": json.dumps({"flags": [], "losses": [2.0, 1.0, 0.5]}).encode(),
        **(more or {}),
    }
    if others is not None:
        files |= {"isolated.json": json.dumps({"others": others}).encode(), "router.safetensors": b"router"}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return {**files, "manifest.json": json.dumps(digests).encode()}


def make_stored_version(
    rows: Rows,
    task: str,
    *,
    parent: Version | None = None,
    passed: bool = True,
    text: str | None = None,
    others: Mapping[str, str] | None = None,
    more: Mapping[str, bytes] | None = None,
    form: str | None = None,
) -> Version:
    """A version whose dataset, artifact and checkpoint lie in the store, scored on the task's suite."""
    services = rows.services
    with transaction(services.sessions) as session:
        snapshot = rows.snapshot(session, task)
    services.store.put(snapshot.object_key, snapshot.jsonl)
    files = artifact_files(text or uuid.uuid4().hex, others, more)
    artifact_hash = hashlib.sha256(files["manifest.json"]).hexdigest()
    key = f"projects/{rows.project_id}/artifacts/{artifact_hash}"
    for name, data in files.items():
        services.store.put(f"{key}/{name}", data)
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, rows.adapter, lock=True)
        params = {"task": task, "parent": parent.number if parent else None, "training": {"steps": 5}}
        request = TrainWeaver.from_json(params | ({"form": form} if form else {}))
        job = jobs.create_job(session, rows.project_id, request, adapter)
        job.dataset_id = snapshots.record_dataset(session, snapshot).id
        job.state = "succeeded"
        version = register_version(
            session,
            job,
            adapter,
            parent_id=parent.id if parent else None,
            artifact_key=key,
            artifact_hash=artifact_hash,
            code_version="test",
            report=json.loads(files["report.json"]),
        )
        suite = freeze_suite(session, get_task(session, rows.project_id, task))
        assert suite is not None
        items = [
            {"score": 1.0, "answer": f"answer to {row.messages[0]['content']}"}
            for row in suite_trajectories(session, suite.id)
        ]
        record_evaluation(session, subject_of(adapter, version), suite.id, score=1.0, items=items, seconds=0.1)
        terms, after = GateTerms(margin=0.05), [1.0 if passed else 0.0]
        comparison = compare(task, new=True, baseline=[0.0], candidate=after, terms=terms)
        record_gate(session, version, baseline=None, comparisons=[comparison], terms=terms, policy=adapter.gate_policy)
    services.store.put(f"jobs/{job.id}/checkpoint.safetensors", b"weights and order of data")
    return version


def elsewhere(rows: Rows, **adapter: Any) -> Rows:
    """Another installation: another project, as far as rows and objects go."""
    other = Rows(rows.services, uuid.uuid4(), rows.adapter)
    with transaction(rows.services.sessions) as session:
        session.add(Project(id=other.project_id, name=other.project_id.hex))
        session.flush()
        values = {"base_model": "tiny", "base_revision": "r1", **adapter}
        create_adapter(session, other.project_id, name=other.adapter, **values)
    return other


def export_version(rows: Rows, version: Version, path: Path) -> Path:
    with transaction(rows.services.sessions) as session:
        described = describe_version(session, session.get_one(Version, version.id))
    write_archive(rows.services.store, described, version.artifact_key, path)
    return path


def store_archive(rows: Rows, archive: Archive) -> str:
    """Put its bytes into the project's folders. Returns the key of the artifact."""
    store, key = rows.services.store, artifact_key(rows.project_id, archive.description["artifact_hash"])
    store.put_folder(key, archive.folder)
    for part, files in archive.parts.items():
        store.put_folder(artifact_beside(key, part), files)
    return key


def import_archive(rows: Rows, path: Path, folder: Path) -> Imported:
    """Import an archive into the adapter of `rows`, unpacked in the empty `folder`: bytes first, then the rows."""
    archive = read_archive(path, folder, max_bytes=10_000_000)
    key = store_archive(rows, archive)
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, rows.adapter, lock=True)
        return admit(session, adapter, archive.description, archive.report, key=key, actor="anna")


def purge_versions(rows: Rows, *numbers: int) -> None:
    """Purge rows and bytes of the versions, as retention does."""
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, rows.adapter, lock=True)
        versions = [get_version(session, adapter, number) for number in numbers]
        folders = purge(session, adapter, versions, actor="anna", reason="")
    for folder in folders:
        rows.services.store.delete_folder(folder)


def beside(rows: Rows, adapter: str, **values: Any) -> Rows:
    """Another adapter of the same project."""
    other = Rows(rows.services, rows.project_id, adapter)
    with transaction(rows.services.sessions) as session:
        other.make_adapter(session, **values)
    return other


def retar(source: Path, target: Path, edit: Callable[[dict[str, bytes]], None]) -> Path:
    with tarfile.open(source) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]  # all regular
    edit(files)
    with tarfile.open(target, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            if name == "artifact/link":
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
            tar.addfile(member, io.BytesIO(data))
    return target


def stored_keys(rows: Rows, prefix: str | None = None) -> list[str]:
    own = f"projects/{rows.project_id}/"
    return [found.key for found in rows.services.store.list(own if prefix is None else prefix)]


def whole_database(rows: Rows) -> str:
    """Every row of every table as text."""
    texts: list[str] = []
    with transaction(rows.services.sessions) as session:
        tables: Sequence[str] = session.scalars(
            sa.text("select table_name from information_schema.tables where table_schema = 'public'")
        ).all()
        for table in tables:
            texts += session.scalars(sa.text(f'select row_to_json(t)::text from "{table}" t')).all()
    return "\n".join(texts)


def whole_store(rows: Rows) -> str:
    """All objects of the project and of all jobs, as text where they are text: other tests share the store."""
    keys = stored_keys(rows) + stored_keys(rows, "jobs/")
    return "\n".join(rows.services.store.get(key).decode(errors="replace") for key in keys)


def trajectories(rows: Rows, *, held_out: bool) -> list[Trajectory]:
    with transaction(rows.services.sessions) as session:
        query = sa.select(Trajectory).where(Trajectory.held_out.is_(held_out)).order_by(Trajectory.seq)
        return list(session.scalars(query))
