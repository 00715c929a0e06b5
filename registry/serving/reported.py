"""What was reported: feedback listed, newest first, and searched by its comments."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, or_, select, text
from sqlalchemy.orm import Session, joinedload

from registry.errors import Invalid
from registry.json_text import is_storable, show
from registry.models import Exposure, Feedback, TrajectoryReward


@dataclass(frozen=True)
class FeedbackFilter:
    """Which feedback is wanted; None wants any."""

    search: str | None = None
    """Words of the comment, all of them; "quoted ones" in a row, `or` between alternatives, `-` before what must not be
    there, as PostgreSQL's `websearch_to_tsquery` reads them, without regard to any language's grammar."""
    source: str | None = None
    completion_id: str | None = None
    run_id: uuid.UUID | None = None
    session_id: str | None = None
    """The session that was rewarded, or that the rewarded answer belongs to."""
    trajectory_id: uuid.UUID | None = None
    """A trajectory that the reward was given to."""
    min_reward: float | None = None
    max_reward: float | None = None


@dataclass(frozen=True)
class Reported:
    feedback: Feedback
    exposure: Exposure | None
    """The answer, where one was named."""
    trajectories: tuple[uuid.UUID, ...]
    """What the reward was given to so far."""


def list_feedback(
    session: Session, project_id: uuid.UUID, wanted: FeedbackFilter, *, before: int | None, limit: int
) -> list[Reported]:
    """Newest first; `before` is the `seq` of the last one already seen.

    Raises:
        Invalid: a text that can't be looked for.
    """
    for value in (wanted.search, wanted.source, wanted.completion_id, wanted.session_id):
        if value is not None and not is_storable(value):
            raise Invalid(f"{show(value)} holds NUL or half a surrogate pair; expected text")
    query = select(Feedback).where(Feedback.project_id == project_id, Feedback.part_of.is_(None))
    if before is not None:
        query = query.where(Feedback.seq < before)
    if wanted.search is not None:
        simple = text("'simple'::regconfig")
        words = func.to_tsvector(simple, Feedback.comment)
        query = query.where(words.op("@@")(func.websearch_to_tsquery(simple, wanted.search)))
    if wanted.session_id is not None:
        answers = select(Exposure.completion_id).where(
            Exposure.project_id == project_id, Exposure.session_id == wanted.session_id
        )
        query = query.where(or_(Feedback.session_id == wanted.session_id, Feedback.completion_id.in_(answers)))
    if wanted.trajectory_id is not None:
        given = select(TrajectoryReward.feedback_seq).where(TrajectoryReward.trajectory_id == wanted.trajectory_id)
        query = query.where(Feedback.seq.in_(given))
    exact = {
        Feedback.source: wanted.source,
        Feedback.completion_id: wanted.completion_id,
        Feedback.run_id: wanted.run_id,
    }
    query = query.where(*(column == value for column, value in exact.items() if value is not None))
    if wanted.min_reward is not None:
        query = query.where(Feedback.reward >= wanted.min_reward)
    if wanted.max_reward is not None:
        query = query.where(Feedback.reward <= wanted.max_reward)
    rows = session.scalars(query.options(joinedload(Feedback.version)).order_by(Feedback.seq.desc()).limit(limit))
    return _with_targets(session, rows.all())


def _with_targets(session: Session, rows: Sequence[Feedback]) -> list[Reported]:
    ids = [row.completion_id for row in rows if row.completion_id is not None]
    exposures = {
        row.completion_id: row for row in session.scalars(select(Exposure).where(Exposure.completion_id.in_(ids)))
    }
    given: dict[int | None, list[uuid.UUID]] = {}
    rewards = select(TrajectoryReward.feedback_seq, TrajectoryReward.trajectory_id).where(
        TrajectoryReward.feedback_seq.in_([row.seq for row in rows])
    )
    for seq, trajectory_id in session.execute(rewards.order_by(TrajectoryReward.seq)):
        given.setdefault(seq, []).append(trajectory_id)
    return [Reported(row, exposures.get(row.completion_id or ""), tuple(given.get(row.seq, ()))) for row in rows]
