"""Feedback on a whole run, on a session, or on a trajectory.

It closes what is open: an agent that is rewarded has done its work. For routes it counts as any feedback of the session
does, once: by each route that gave answers of it, for the version that gave them.

A session may be rewarded again once something new has happened in it; until then its first reward of a source stands.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from registry.errors import FeedbackDiffers
from registry.models import Exposure, Feedback, Route, Run, RunCall, TrajectoryReward
from registry.recordings.ending import request_close
from registry.rewards.pending import SESSION_REACH, give_feedback, runs_named
from registry.serving.canaries import Outcome, judge_canary
from registry.serving.exposures import check_session_id
from registry.serving.feedback import (
    Attribution,
    Rating,
    Received,
    check_report,
    counts,
    insert_feedback,
    repeated,
)
from registry.serving.routes import lock_route
from registry.trajectories.records import get_trajectory


@dataclass(frozen=True)
class _Answered:
    """An answer, or the newest of several that are alike in what follows."""

    route_id: uuid.UUID | None
    version_id: uuid.UUID | None
    at: datetime
    session_id: str | None
    completion_id: str


def receive_run_feedback(session: Session, project_id: uuid.UUID, run_id: uuid.UUID, report: Rating) -> Received:
    """Record a reward of a run and close it. A run that is not known yet may still be on its way: the reward waits.

    Raises:
        FeedbackDiffers: the source has reported another reward for it, or for its session.
        Invalid, InvalidName: the reward, the comment or the source's name.
    """
    check_report(report)
    runs = session.scalars(runs_named(project_id, run_id).order_by(Run.seq)).all()
    attributions = _attribute(session, _answers_of_runs(session, project_id, runs), report.source, f"run-{run_id}")
    created, outcome = _insert(session, project_id, report, attributions, run_id=run_id)
    if created is None:
        same = Feedback.project_id == project_id, Feedback.run_id == run_id, Feedback.source == report.source
        return repeated(session, *same, report=report)
    closing = [each for run in runs for each in request_close(session, project_id, run_id=run)]
    return _received(session, created, attributions, outcome, closing)


def receive_session_feedback(session: Session, project_id: uuid.UUID, session_id: str, report: Rating) -> Received:
    """Record a reward of a session and close its open runs.

    It goes to the runs of the session that began before it, were active in the last day, and have no reward of this
    source yet. A session that is not known yet may still be on its way: the reward waits.

    Raises:
        FeedbackDiffers: the source has reported another reward, and nothing has happened in the session since.
        Invalid, InvalidName: the session's id, the reward, the comment or the source's name.
    """
    check_report(report)
    check_session_id(session_id)
    # One after the other: whether something has happened since is read before the row is written.
    turn = func.hashtextextended(f"feedback on {project_id} {session_id} by {report.source}", 0)
    session.execute(select(func.pg_advisory_xact_lock(turn)))
    same = (
        Feedback.project_id == project_id,
        Feedback.session_id == session_id,
        Feedback.source == report.source,
    )
    last = session.scalar(select(func.max(Feedback.at)).where(*same))
    active = _last_active(session, project_id, session_id)
    if last is not None and (active is None or active <= last):
        return repeated(session, *same, report=report)
    answers = _answers_of_session(session, project_id, session_id)
    attributions = _attribute(session, answers, report.source, session_id)
    created, outcome = _insert(session, project_id, report, attributions, session_id=session_id)
    if created is None:
        raise RuntimeError(f"feedback on session {session_id!r} met another, which it should have waited for")
    closing = request_close(session, project_id, session_id=session_id)
    return _received(session, created, attributions, outcome, closing)


def receive_trajectory_feedback(
    session: Session, project_id: uuid.UUID, trajectory_id: uuid.UUID, report: Rating
) -> Received:
    """Record a reward of a stored trajectory, whether it was recorded or uploaded.

    Raises:
        TrajectoryNotFound: no such trajectory in this project.
        FeedbackDiffers: the source has given it another reward.
        Invalid, InvalidName: the reward, the comment or the source's name.
    """
    check_report(report)
    get_trajectory(session, project_id, trajectory_id)
    runs = session.scalars(select(Run.id).where(Run.trajectory_id == trajectory_id)).all()
    unit = f"run-{runs[0]}" if runs else ""
    attributions = _attribute(session, _answers_of_runs(session, project_id, runs), report.source, unit)
    created, outcome = _insert(session, project_id, report, attributions, trajectory_id=trajectory_id)
    if created is None:
        same = Feedback.project_id == project_id, Feedback.trajectory_id == trajectory_id
        return repeated(session, *same, Feedback.source == report.source, report=report)
    return _received(session, created, attributions, outcome, ())


def _received(
    session: Session,
    feedback: Feedback,
    attributions: Sequence[Attribution],
    outcome: Outcome | None,
    closing: Collection[uuid.UUID],
) -> Received:
    rewarded = give_feedback(session, feedback)
    if feedback.session_id is None:
        _check_it_stands(session, feedback, rewarded)
    route = attributions[0].route if attributions else None
    return Received(feedback, None, True, route, outcome, tuple(closing), tuple(rewarded))


def _check_it_stands(session: Session, feedback: Feedback, trajectory_ids: Collection[uuid.UUID]) -> None:
    """Raise FeedbackDiffers if the source has given one of the trajectories another reward in another way."""
    other = select(TrajectoryReward).where(
        TrajectoryReward.trajectory_id.in_(trajectory_ids),
        TrajectoryReward.source == feedback.source,
        TrajectoryReward.completion_id.is_(None),
        TrajectoryReward.reward != feedback.reward,
    )
    found = session.scalars(other.limit(1)).one_or_none()
    if found is not None:
        raise FeedbackDiffers(
            f"{feedback.source!r} has given trajectory {found.trajectory_id} the reward {found.reward:g} already, "
            f"which stands; got {feedback.reward:g}. Report another opinion under another source."
        )


def _insert(
    session: Session,
    project_id: uuid.UUID,
    report: Rating,
    attributions: Sequence[Attribution],
    **target: object,
) -> tuple[Feedback | None, Outcome | None]:
    """The report's row, with a part of it for each further route, and how it ended the first canary that it decides.

    None if the source has reported a reward for the target already.
    """
    first, *others = attributions or [Attribution()]
    created = insert_feedback(session, project_id, report, first, **target)
    if created is None:
        return None, None
    silent = Rating(report.reward, report.actor, report.source)
    rows = [(created, first)]
    for each in others:
        part = insert_feedback(session, project_id, silent, each, part_of=created.seq, **target)
        if part is not None:
            rows.append((part, each))
    outcomes = [judge_canary(session, each.route, row) for row, each in rows if each.counted and each.route]
    return created, next((outcome for outcome in outcomes if outcome is not None), None)


def _attribute(session: Session, answers: Sequence[_Answered], source: str, unit: str) -> list[Attribution]:
    """Where a reward of these answers counts: for each route the version of the newest one.

    A route of which several versions answered counts nothing: the reward is evidence for none of them. The routes are
    locked, in the order in which everybody locks adapters.
    """
    answers = sorted(answers, key=lambda answer: answer.at)
    by_route: dict[uuid.UUID, list[_Answered]] = {}
    for answer in answers:
        if answer.route_id is not None:
            by_route.setdefault(answer.route_id, []).append(answer)
    query = select(Route.id).where(Route.id.in_(by_route)).order_by(Route.adapter_id, Route.number)
    found = []
    for route_id in session.scalars(query).all():
        route, mine = lock_route(session, route_id), by_route[route_id]
        last = mine[-1]
        name = last.session_id or unit
        units = list({name, *(each.session_id or each.completion_id for each in mine)})
        alone = all(each.version_id == last.version_id for each in mine)
        counted = alone and counts(session, route, source, units)
        found.append((last.at, Attribution(last.version_id, route, name, counted)))
    # The newest route first: it is the one that the report's own row names.
    found.sort(key=lambda each: each[0], reverse=True)
    return [each for _, each in found] or [Attribution(answer.version_id) for answer in answers[-1:]]


def _answers_of_runs(session: Session, project_id: uuid.UUID, run_ids: Collection[uuid.UUID]) -> list[_Answered]:
    calls = select(RunCall.completion_id).where(RunCall.run_id.in_(run_ids))
    query = select(Exposure).where(Exposure.project_id == project_id, Exposure.completion_id.in_(calls))
    return [
        _Answered(row.route_id, row.version_id, row.at, row.session_id, row.completion_id)
        for row in session.scalars(query)
    ]


def _answers_of_session(session: Session, project_id: uuid.UUID, session_id: str) -> list[_Answered]:
    """The newest of each version by each route, up to a day before the last one."""
    mine = Exposure.project_id == project_id, Exposure.session_id == session_id
    last = select(func.max(Exposure.at)).where(*mine).scalar_subquery()
    query = (
        select(Exposure.route_id, Exposure.version_id, func.max(Exposure.at))
        .where(*mine, Exposure.at >= last - SESSION_REACH)
        .group_by(Exposure.route_id, Exposure.version_id)
    )
    return [_Answered(route_id, version_id, at, session_id, "") for route_id, version_id, at in session.execute(query)]


def _last_active(session: Session, project_id: uuid.UUID, session_id: str) -> datetime | None:
    """When the last answer of the session was given; None if nothing of it is known."""
    answered = select(func.max(Exposure.at)).where(Exposure.project_id == project_id, Exposure.session_id == session_id)
    recorded = select(func.max(Run.last_at)).where(Run.project_id == project_id, Run.session_id == session_id)
    moments = [session.scalar(answered), session.scalar(recorded)]
    return max((moment for moment in moments if moment is not None), default=None)
