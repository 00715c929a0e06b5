"""Counts of what was recorded and of what was not, by reason."""

import uuid
from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.models import Project, RecordingCount


def add_counts(session: Session, counts: Mapping[tuple[uuid.UUID, str], int]) -> None:
    """Add to the counts of (project, outcome). Those of projects that are gone are dropped."""
    if not counts:
        return
    there = set(session.scalars(select(Project.id).where(Project.id.in_({project for project, _ in counts}))))
    rows = [
        {"project_id": project, "outcome": outcome, "count": count, "last_at": utc_now()}
        for (project, outcome), count in sorted(counts.items(), key=lambda each: (each[0][0].hex, each[0][1]))
        if project in there
    ]
    if not rows:
        return
    new = insert(RecordingCount).values(rows)
    session.execute(
        new.on_conflict_do_update(
            index_elements=["project_id", "outcome"],
            set_={"count": RecordingCount.count + new.excluded.count, "last_at": new.excluded.last_at},
        )
    )


def list_counts(session: Session, project_id: uuid.UUID) -> list[RecordingCount]:
    query = select(RecordingCount).where(RecordingCount.project_id == project_id)
    return list(session.scalars(query.order_by(RecordingCount.outcome)))
