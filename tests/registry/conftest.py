"""Rows to work with: a small builder over the registry's own functions."""

import uuid
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from registry import jobs
from registry.adapters import create_adapter, get_adapter
from registry.database import transaction
from registry.datasets import snapshots
from registry.gates.gate import GateTerms, compare, record_gate
from registry.job_requests import TrainWeaver
from registry.models import Adapter, Version
from registry.tasks import create_task, get_task
from registry.trajectories.imports import TokenLimit, import_batch, read_item
from registry.versions.records import register_version
from registry.wiring import Services

TOKENS = TokenLimit(count=lambda messages, tools: 10, max_tokens=1000)


def chats(count: int, *, word: str = "order", **envelope: Any) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"Where is {word} {number}?"},
                {"role": "assistant", "content": f"{word} {number} is here."},
            ],
            **envelope,
        }
        for number in range(count)
    ]


@dataclass
class Rows:
    services: Services
    project_id: uuid.UUID
    adapter: str = "bot"
    task_names: list[str] = field(default_factory=list)

    def task(self, name: str, items: list[dict[str, Any]] | None = None, share: float = 0.25, **values: Any) -> str:
        with transaction(self.services.sessions) as session:
            create_task(session, self.project_id, name, grader={"kind": "exact"}, holdout_share=share, **values)
            sent = [read_item(n, item) for n, item in enumerate(items if items is not None else chats(40, word=name))]
            results = import_batch(session, self.project_id, sent, default_task=name, tokens=TOKENS)
            assert {r.status for r in results} <= {"accepted"}
        self.task_names.append(name)
        return name

    def make_adapter(self, session: Session, **values: Any) -> Adapter:
        return create_adapter(
            session, self.project_id, name=self.adapter, base_model="tiny", base_revision="r1", **values
        )

    def snapshot(self, session: Session, task: str) -> snapshots.Snapshot:
        """What a training on one task alone would read."""
        return snapshots.snapshot(
            session,
            self.project_id,
            get_task(session, self.project_id, task),
            earlier_tasks=[],
            replay_share=0.0,
            min_reward=0.5,
            seed=0,
        )

    def version(
        self, task: str, *, passed: bool | None = True, parent: Version | None = None, form: str | None = None
    ) -> Version:
        """A registered version trained on `task`, with its gate unless `passed` is None."""
        with transaction(self.services.sessions) as session:
            adapter = get_adapter(session, self.project_id, self.adapter, lock=True)
            snapshot = self.snapshot(session, task)
            job = jobs.create_job(session, self.project_id, TrainWeaver(task, form=form), adapter)
            job.dataset_id = snapshots.record_dataset(session, snapshot).id
            version = register_version(
                session,
                job,
                adapter,
                parent_id=parent.id if parent else None,
                artifact_key=f"artifacts/{job.id}",
                artifact_hash="ab" * 32,
                code_version="test",
                report={"flags": []},
            )
            if passed is not None:
                terms = GateTerms(margin=0.05)
                after = [1.0 if passed else 0.0]
                comparison = compare(task, new=True, baseline=[0.0], candidate=after, terms=terms)
                policy = adapter.gate_policy
                record_gate(session, version, baseline=None, comparisons=[comparison], terms=terms, policy=policy)
            return version


def refused_as_immutable(table: str) -> Any:
    """Expects the trigger's refusal to change rows of a table."""
    return pytest.raises(DBAPIError, match=f"rows of {table} are immutable")


@pytest.fixture
def rows(services: Services, project_id: uuid.UUID) -> Rows:
    built = Rows(services, project_id)
    with transaction(services.sessions) as session:
        built.make_adapter(session)
    return built
