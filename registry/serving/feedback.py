"""Feedback: rewards reported for answers, attributed to the version that gave them. A canary is judged as they come.

Feedback may come late, twice, or from several sources. The first reward of each source is final: sending it again
changes nothing, and a different one is refused. A route's comparison counts the first feedback of each session (from
the route's `reward_source`, if it names one): answers of one session are not independent, sessions are.

Feedback on a whole run or session is in `registry.serving.run_feedback`. What becomes of a reward for the trajectory
that was recorded is in `registry.rewards`.
"""

import uuid
from dataclasses import dataclass

from sqlalchemy import ColumnElement, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.errors import FeedbackDiffers, Invalid
from registry.json_text import is_storable
from registry.models import Exposure, Feedback, Route
from registry.names import check_name
from registry.rewards.pending import give_feedback
from registry.serving.canaries import Outcome, judge_canary
from registry.serving.exposures import get_exposure
from registry.serving.routes import lock_route

USER = "user"


@dataclass(frozen=True)
class Rating:
    """What somebody says of an answer, a run, a session or a trajectory."""

    reward: float
    """From 0, bad, to 1, good."""
    actor: str
    source: str = USER
    comment: str = ""


@dataclass(frozen=True)
class Received:
    feedback: Feedback
    exposure: Exposure | None
    """The answer, where one was named."""
    is_new: bool
    route: Route | None
    """The route that assigned the version, in its current state."""
    outcome: Outcome | None
    """How this feedback ended it; None if it did not."""
    runs: tuple[uuid.UUID, ...] = ()
    """Runs that are being closed by it."""
    trajectories: tuple[uuid.UUID, ...] = ()
    """Trajectories that it names and that are written."""


@dataclass(frozen=True)
class Attribution:
    """Where a feedback counts."""

    version_id: uuid.UUID | None = None
    route: Route | None = None
    unit: str | None = None
    counted: bool = False


def receive_feedback(session: Session, project_id: uuid.UUID, completion_id: str, report: Rating) -> Received:
    """Record a reward of an answer, and end the canary that it decides, in one transaction.

    Raises:
        CompletionNotFound: no such answer in this project.
        FeedbackDiffers: the source has reported another reward for it.
        Invalid, InvalidName: the reward, the comment or the source's name.
    """
    check_report(report)
    exposure = get_exposure(session, project_id, completion_id)
    # Locked before the insert, so that what counts, and in which order, is decided one feedback after the other.
    route = lock_route(session, exposure.route_id) if exposure.route_id else None
    unit = (exposure.session_id or exposure.completion_id) if route else None
    counted = route is not None and unit is not None and counts(session, route, report.source, [unit])
    attribution = Attribution(exposure.version_id, route, unit, counted)
    created = insert_feedback(session, project_id, report, attribution, completion_id=completion_id)
    if created is None:
        same = Feedback.completion_id == completion_id
        return repeated(session, Feedback.source == report.source, same, report=report, exposure=exposure, route=route)
    outcome = judge_canary(session, route, created) if counted and route is not None else None
    rewarded = tuple(give_feedback(session, created))
    return Received(created, exposure, True, route, outcome, trajectories=rewarded)


def check_report(report: Rating) -> None:
    """Raises Invalid, or InvalidName."""
    check_name("feedback source", report.source)
    if not 0.0 <= report.reward <= 1.0:
        raise Invalid(f"reward is {report.reward}; expected a number from 0 (bad) to 1 (good)")
    if not is_storable(report.comment):
        raise Invalid("the comment has a NUL or half a surrogate pair in it; expected text")


def insert_feedback(
    session: Session, project_id: uuid.UUID, report: Rating, attribution: Attribution, **target: object
) -> Feedback | None:
    """The new row; None if the source has reported a reward for the target already.

    Args:
        target: the column that names what is rewarded, and `part_of`.
    """
    route = attribution.route
    return session.scalar(
        insert(Feedback)
        .values(
            project_id=project_id,
            source=report.source,
            reward=report.reward,
            comment=report.comment,
            actor=report.actor,
            version_id=attribution.version_id,
            route_id=route.id if route else None,
            unit=attribution.unit,
            counted=attribution.counted,
            at=utc_now(),
            **target,
        )
        .on_conflict_do_nothing()
        .returning(Feedback)
    )


def repeated(
    session: Session,
    *same: ColumnElement[bool],
    report: Rating,
    exposure: Exposure | None = None,
    route: Route | None = None,
) -> Received:
    """What was reported before, the newest of `same`.

    Raises:
        FeedbackDiffers: it is another reward.
    """
    query = select(Feedback).where(*same, Feedback.part_of.is_(None)).order_by(Feedback.seq.desc()).limit(1)
    known = session.scalars(query).one()
    if known.reward != report.reward:
        target = known.completion_id or known.run_id or known.session_id or known.trajectory_id
        raise FeedbackDiffers(
            f"{report.source!r} has given {target} the reward {known.reward:g} already, which stands; got "
            f"{report.reward:g}. Report another opinion under another source."
        )
    if route is None and known.route_id is not None:
        route = session.get_one(Route, known.route_id)
    return Received(known, exposure, False, route, None, trajectories=tuple(give_feedback(session, known)))


def counts(session: Session, route: Route, source: str, units: list[str]) -> bool:
    """Whether the route's comparison counts a feedback of this source, being the first of these units."""
    query = select(Feedback.seq).where(Feedback.route_id == route.id, Feedback.unit.in_(units), Feedback.counted)
    return route.reward_source in (None, source) and session.scalars(query.limit(1)).one_or_none() is None
