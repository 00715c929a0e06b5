"""What a project's people should see first: what waits for one of them, what failed, and what was learned lately."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

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
    versions = (
        select(Version)
        .join(Adapter, Adapter.id == Version.adapter_id)
        .where(Adapter.project_id == project_id)
        .options(joinedload(Version.adapter), joinedload(Version.dataset).joinedload(Dataset.task))
        .order_by(Version.created_at.desc())
        .limit(_MOST)
    )
    undecided = (
        select(Gate.version_id)
        .outerjoin(GateDecision, GateDecision.gate_id == Gate.id)
        .where(Gate.policy == "manual", Gate.passed, GateDecision.gate_id.is_(None))
    )
    moves = (
        select(AliasMove)
        .join(Adapter, Adapter.id == AliasMove.adapter_id)
        .where(Adapter.project_id == project_id, AliasMove.at > since)
        .options(joinedload(AliasMove.to_version).joinedload(Version.adapter), joinedload(AliasMove.from_version))
        .order_by(AliasMove.seq.desc())
        .limit(_MOST)
    )
    failed = (
        select(Job)
        .where(Job.project_id == project_id, Job.state == "failed", Job.finished_at > since)
        .options(joinedload(Job.adapter))
        .order_by(Job.seq.desc())
        .limit(_MOST)
    )
    return Overview(
        waiting=session.scalars(versions.where(Version.id.in_(undecided))).all(),
        learned=session.scalars(versions.where(Version.created_at > since)).all(),
        moves=session.scalars(moves).all(),
        failed=session.scalars(failed).all(),
    )
