"""What ends runs from outside: a reward of the run or of its session. `registry.recordings.closing` writes them.

Whoever rewards and whoever moves answers are two processes. A reward that comes first finds no run yet, and ends it as
soon as its answers stand in it.
"""

import uuid
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, func, select, union_all
from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.database import one_of
from registry.models import Feedback, Run, RunCall
from registry.recordings.recorders import all_moved_until

_LOOK_BACK = timedelta(minutes=1)
"""Much more than passes between two looks, and than a reward takes to be committed."""


def request_close(
    session: Session,
    project_id: uuid.UUID,
    *,
    run_id: uuid.UUID | None = None,
    session_id: str | None = None,
    reason: str = "reward",
) -> list[uuid.UUID]:
    """Close the open runs of a session, or one run. They become trajectories moments later, when what was answered
    before has come in from every process. Returns the ids of all unfinished ones."""
    which = Run.id == run_id if run_id is not None else Run.session_id == session_id
    mine = Run.project_id == project_id, which
    # In this order, as whoever moves answers locks them.
    unfinished = select(Run).where(*mine, Run.state != "closed").order_by(Run.seq).with_for_update()
    runs = session.scalars(unfinished.execution_options(populate_existing=True)).all()
    for run in runs:
        if run.state == "open":
            run.state, run.close_reason, run.closing_at = "closing", reason, utc_now()
    session.flush()
    return [run.id for run in runs]


def end_rewarded(session: Session, moved_until: datetime | None = None) -> list[uuid.UUID]:
    """End the open runs of all projects that were rewarded before they were known. Returns their ids.

    Args:
        moved_until: all that was answered before stood in runs when this was called last: feedback is looked through
            from a minute before. None asks the recorders.
    """
    since = (moved_until or all_moved_until(session)) - _LOOK_BACK
    by_call = RunCall.run_id == Run.id, Feedback.run_id == RunCall.announced_run_id
    named = union_all(
        _rewarded(since, Feedback.session_id == Run.session_id),
        _rewarded(since, Feedback.run_id == Run.id),
        _rewarded(since, *by_call),
    ).subquery()
    first = select(named.c.id, func.min(named.c.at)).group_by(named.c.id)
    found: dict[uuid.UUID, datetime] = dict(session.execute(first).all())
    if not found:
        return []
    # One that is locked gets another answer, or is ended by another process: the next look sees what has become of it.
    open_ones = select(Run).where(one_of(Run.id, list(found)), Run.state == "open").with_for_update(skip_locked=True)
    ended = [run for run in session.scalars(open_ones) if run.last_at <= found[run.id]]
    for run in ended:
        run.state, run.close_reason, run.closing_at = "closing", "reward", found[run.id]
    return [run.id for run in ended]


def _rewarded(since: datetime, *names: ColumnElement[bool]) -> Select[uuid.UUID, datetime]:
    """(open run, when it was rewarded) where the reward came behind its last answer."""
    came = Feedback.at > since, Feedback.at >= Run.last_at, Feedback.part_of.is_(None)
    return select(Run.id, Feedback.at).where(*names, *came, Feedback.project_id == Run.project_id, Run.state == "open")
