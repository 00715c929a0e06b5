"""Rows that a worker would have made, for tests of what shows and moves them."""

import uuid

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from registry import jobs
from registry.adapters import create_adapter
from registry.gates.evaluations import record_evaluation, subject_of
from registry.gates.gate import GateTerms, compare, record_gate
from registry.job_requests import TrainWeaver
from registry.models import Adapter, Dataset, Gate, Job, Suite, Task, Version
from registry.tasks import create_task
from registry.versions.champion import champion
from registry.versions.records import register_version


def make_task(session: Session, project_id: uuid.UUID, name: str) -> Task:
    return create_task(session, project_id, name, grader={"kind": "exact"}, holdout_share=0.2)[0]


def make_adapter(session: Session, project_id: uuid.UUID, name: str = "bot") -> Adapter:
    return create_adapter(session, project_id, name=name, base_model="tiny", base_revision="1")


def make_version(session: Session, adapter: Adapter, task: Task, job: Job | None = None) -> Version:
    """The next version of the adapter, trained on `task`, without a gate."""
    job = job or jobs.create_job(session, adapter.project_id, TrainWeaver.from_json({"task": "t"}), adapter)
    dataset = Dataset(
        project_id=adapter.project_id,
        task_id=task.id,
        content_hash=uuid.uuid4().hex,
        manifest={"new": 4},
        object_key="datasets/x",
    )
    session.add(dataset)
    session.flush()
    job.dataset_id = dataset.id
    parent = champion(session, adapter)
    return register_version(
        session,
        job,
        adapter,
        parent_id=parent.id if parent else None,
        artifact_key="versions/x",
        artifact_hash="0" * 64,
        code_version="test",
        report={"flags": []},
    )


def make_gate(session: Session, version: Version, task: Task, *, before: float, after: float) -> Gate:
    terms = GateTerms(margin=0.05)
    comparison = compare(task.name, new=True, baseline=[before], candidate=[after], terms=terms)
    return record_gate(
        session, version, baseline=None, comparisons=[comparison], terms=terms, policy=version.adapter.gate_policy
    )


def make_scores(session: Session, adapter: Adapter, task: Task, scores: dict[Version | None, float]) -> None:
    """One more suite of the task, and what each version, or with None the base, scores on it."""
    known = session.scalar(select(func.count()).where(Suite.task_id == task.id)) or 0
    suite = Suite(task_id=task.id, number=known + 1, content_hash=uuid.uuid4().hex, items=1)
    session.add(suite)
    session.flush()
    for version, score in scores.items():
        items = [{"score": score, "answer": "x"}]
        record_evaluation(session, subject_of(adapter, version), suite.id, score=score, items=items, seconds=0.1)
