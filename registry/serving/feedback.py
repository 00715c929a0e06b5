"""Feedback: rewards reported for answers, attributed to the version that gave them. A canary is judged as they come.

Feedback may come late, twice, or from several sources. The first reward of each source is final: sending it again
changes nothing, and a different one is refused. A route's comparison counts the first feedback of each session (from
the route's `reward_source`, if it names one): answers of one session are not independent, sessions are.
"""

import uuid
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.errors import FeedbackDiffers, Invalid
from registry.json_text import is_storable
from registry.models import Exposure, Feedback, Route
from registry.names import check_name
from registry.serving.canaries import Outcome, judge_canary
from registry.serving.exposures import get_exposure
from registry.serving.routes import lock_route

USER = "user"


@dataclass(frozen=True)
class Received:
    feedback: Feedback
    exposure: Exposure
    is_new: bool
    route: Route | None
    """The route that assigned the version, in its current state."""
    outcome: Outcome | None
    """How this feedback ended it; None if it did not."""


def receive_feedback(
    session: Session,
    project_id: uuid.UUID,
    completion_id: str,
    reward: float,
    *,
    actor: str,
    source: str = USER,
    comment: str = "",
) -> Received:
    """Record a reward in [0, 1], and end the canary that it decides, in one transaction.

    Raises:
        CompletionNotFound: no such answer in this project.
        FeedbackDiffers: the source has reported another reward for it.
        Invalid, InvalidName: the reward, the comment or the source's name.
    """
    check_name("feedback source", source)
    if not 0.0 <= reward <= 1.0:
        raise Invalid(f"reward is {reward}; expected a number from 0 (bad) to 1 (good)")
    if not is_storable(comment):
        raise Invalid("the comment has a NUL or half a surrogate pair in it; expected text")
    exposure = get_exposure(session, project_id, completion_id)
    # Locked before the insert, so that what counts, and in which order, is decided one feedback after the other.
    route = lock_route(session, exposure.route_id) if exposure.route_id else None
    unit = (exposure.session_id or exposure.completion_id) if route else None
    counted = route is not None and route.reward_source in (None, source) and not _is_counted(session, route, unit)
    created = session.scalar(
        insert(Feedback)
        .values(
            completion_id=completion_id,
            project_id=project_id,
            source=source,
            reward=reward,
            comment=comment,
            actor=actor,
            version_id=exposure.version_id,
            route_id=exposure.route_id,
            unit=unit,
            counted=counted,
            at=utc_now(),
        )
        .on_conflict_do_nothing(index_elements=[Feedback.completion_id, Feedback.source])
        .returning(Feedback)
    )
    if created is None:
        return Received(_recorded(session, completion_id, source, reward), exposure, False, route, None)
    outcome = judge_canary(session, route, created) if counted and route is not None else None
    return Received(created, exposure, True, route, outcome)


def _is_counted(session: Session, route: Route, unit: str | None) -> bool:
    query = select(Feedback.seq).where(Feedback.route_id == route.id, Feedback.unit == unit, Feedback.counted)
    return session.scalar(query) is not None


def _recorded(session: Session, completion_id: str, source: str, reward: float) -> Feedback:
    query = select(Feedback).where(Feedback.completion_id == completion_id, Feedback.source == source)
    known = session.scalars(query).one()
    if known.reward != reward:
        raise FeedbackDiffers(
            f"{source!r} has given {completion_id} the reward {known.reward:g} already, which stands; got {reward:g}. "
            "Report another opinion under another source."
        )
    return known
