"""Versions with bytes in the store and scores on a suite, for tests of what is kept and deleted."""

import hashlib
import json
import uuid
from collections.abc import Sequence

import sqlalchemy as sa

from registry import datasets, jobs
from registry.adapters import get_adapter
from registry.database import transaction
from registry.evaluations import record_evaluation, subject_of
from registry.gates import GateTerms, compare, record_gate
from registry.models import Trajectory, Version
from registry.suites import freeze_suite, suite_trajectories
from registry.tasks import get_task
from registry.versions import register_version
from tests.registry.conftest import Rows


def artifact_files(text: str) -> dict[str, bytes]:
    """A memory's folder as far as the registry looks into it."""
    files = {
        "memory.json": json.dumps({"base_revision": "r1"}).encode(),
        "memory.safetensors": text.encode(),
        "weaver/adapter_model.safetensors": b"weights",
        "report.json": json.dumps({"flags": [], "losses": [2.0, 1.0, 0.5]}).encode(),
    }
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return {**files, "manifest.json": json.dumps(digests).encode()}


def make_stored_version(
    rows: Rows, task: str, *, parent: Version | None = None, passed: bool = True, text: str | None = None
) -> Version:
    """A version whose dataset, artifact and checkpoint lie in the store, scored on the task's suite."""
    services = rows.services
    with transaction(services.sessions) as session:
        snapshot = datasets.snapshot(
            session,
            rows.project_id,
            get_task(session, rows.project_id, task),
            earlier_tasks=[],
            replay_share=0.0,
            min_reward=0.5,
            seed=0,
        )
    services.store.put(snapshot.object_key, snapshot.jsonl)
    files = artifact_files(text or uuid.uuid4().hex)
    artifact_hash = hashlib.sha256(files["manifest.json"]).hexdigest()
    key = f"projects/{rows.project_id}/artifacts/{artifact_hash}"
    for name, data in files.items():
        services.store.put(f"{key}/{name}", data)
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, rows.adapter, lock=True)
        params = {"task": task, "parent": parent.number if parent else None, "training": {"steps": 5}}
        job = jobs.create_job(session, rows.project_id, "train_weaver", params, adapter)
        job.dataset_id = datasets.record_dataset(session, snapshot).id
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
        comparison = compare(task, new=True, champion=[0.0], candidate=after, terms=terms)
        record_gate(session, version, champion=None, comparisons=[comparison], terms=terms, policy=adapter.gate_policy)
    services.store.put(f"jobs/{job.id}/checkpoint.safetensors", b"weights and order of data")
    return version


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
    store = rows.services.store
    return "\n".join(store.get(found.key).decode() for found in store.list(""))


def trajectories(rows: Rows, *, held_out: bool) -> list[Trajectory]:
    with transaction(rows.services.sessions) as session:
        query = sa.select(Trajectory).where(Trajectory.held_out.is_(held_out)).order_by(Trajectory.seq)
        return list(session.scalars(query))
