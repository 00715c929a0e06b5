"""What a project's people should see first: what waits for one of them, what failed, and what was learned lately."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, select, true
from sqlalchemy.orm import Session, defer, joinedload

from registry.models import Adapter, AliasMove, Dataset, Gate, GateDecision, Job, Version

SHOWN_DAYS = 7
_MOST = 20
"""Rows of each kind. The pages of each noun have all."""


@dataclass(frozen=True)
class Overview:
    """Rows of the last `SHOWN_DAYS` days, the newest first; of what waits, all days count."""

    waiting: Sequence[Version]
    """Versions that passed their gate and wait for a person's yes."""
    learned: Sequence[Version]
    moves: Sequence[AliasMove]
    failed: Sequence[Job]


def overview_of(session: Session, project_id: uuid.UUID, now: datetime) -> Overview:
    since = now - timedelta(days=SHOWN_DAYS)
    # The last of each adapter are the end of an index; the last of the project would be looked for among all.
    last = select(Version.id).where(Version.adapter_id == Adapter.id).order_by(Version.number.desc()).limit(_MOST)
    moved = select(AliasMove.seq).where(AliasMove.adapter_id == Adapter.id).order_by(AliasMove.seq.desc()).limit(_MOST)
    undecided = (
        select(Gate.version_id)
        .outerjoin(GateDecision, GateDecision.gate_id == Gate.id)
        .where(Gate.policy == "manual", Gate.passed, GateDecision.gate_id.is_(None))
    )
    moves = (
        select(AliasMove)
        .where(AliasMove.seq.in_(_of_each_adapter(project_id, moved)), AliasMove.at > since)
        .options(
            joinedload(AliasMove.to_version).options(joinedload(Version.adapter), defer(Version.report)),
            joinedload(AliasMove.from_version).defer(Version.report),
        )
        .order_by(AliasMove.seq.desc())
        .limit(_MOST)
    )
    failed = (
        select(Job)
        .where(Job.project_id == project_id, Job.state == "failed", Job.finished_at > since)
        .options(joinedload(Job.adapter))
        .order_by(Job.finished_at.desc())
        .limit(_MOST)
    )
    return Overview(
        waiting=session.scalars(_newest(project_id, Version.id.in_(undecided))).all(),
        learned=session.scalars(
            _newest(project_id, Version.id.in_(_of_each_adapter(project_id, last)), Version.created_at > since)
        ).all(),
        moves=session.scalars(moves).all(),
        failed=session.scalars(failed).all(),
    )


def _newest(project_id: uuid.UUID, *which: ColumnElement[bool]) -> Select[Version]:
    dataset = joinedload(Version.dataset).joinedload(Dataset.task)
    return (
        select(Version)
        .join(Adapter, Adapter.id == Version.adapter_id)
        .where(Adapter.project_id == project_id, *which)
        .options(joinedload(Version.adapter), dataset)
        .order_by(Version.created_at.desc())
        .limit(_MOST)
    )


def _of_each_adapter(project_id: uuid.UUID, last: Select[Any]) -> Select[Any]:
    """What `last`, which names the adapter, finds for each adapter of the project."""
    each = last.correlate(Adapter).lateral("last")
    return select(each.c[0]).select_from(Adapter).join(each, true()).where(Adapter.project_id == project_id)
