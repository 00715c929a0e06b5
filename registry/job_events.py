"""Events of a job as plain values: curves are made of thousands. `registry.jobs` writes them."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.models import JobEvent

EventRow = tuple[int, datetime, str, str, dict[str, Any]]
"""seq, at, level, message, data"""


def newest_events(session: Session, job_id: uuid.UUID, *, most: int) -> list[EventRow]:
    """The last `most` events, oldest first."""
    columns = JobEvent.seq, JobEvent.at, JobEvent.level, JobEvent.message, JobEvent.data
    query = select(*columns).where(JobEvent.job_id == job_id).order_by(JobEvent.seq.desc()).limit(most)
    return [(seq, at, level, message, data) for seq, at, level, message, data in reversed(session.execute(query).all())]
