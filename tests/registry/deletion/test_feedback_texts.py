"""Deletions take comments and sessions' ids from feedback, whatever it names; rewards and counts stay."""

import uuid

import pytest
import sqlalchemy as sa

from registry.clock import utc_now
from registry.database import transaction
from registry.errors import TrajectoryNotFound
from registry.models import Feedback, Run, RunCall, Task, Trajectory
from registry.rewards.pending import settle_run
from registry.serving.feedback import Rating
from registry.serving.run_feedback import (
    receive_run_feedback,
    receive_session_feedback,
    receive_trajectory_feedback,
)
from tests.registry.conftest import Rows, chats
from tests.registry.deleting import delete
from tests.registry.routed import make_routed

SECRET = "tulip-4711"


def _report(reward: float = 1.0, source: str = "user") -> Rating:
    return Rating(reward, "key test", source, f"about {SECRET}")


def _comments(rows: Rows) -> list[tuple[str, str | None, float]]:
    """(comment, session, reward) of all feedback, in order of arrival."""
    with transaction(rows.services.sessions) as session:
        found = session.scalars(sa.select(Feedback).order_by(Feedback.seq))
        return [(row.comment, row.session_id, row.reward) for row in found]


def _run(rows: Rows, trajectory_id: uuid.UUID, session_id: str | None, user: str | None = None) -> uuid.UUID:
    """A run that has become this trajectory."""
    now = utc_now()
    with transaction(rows.services.sessions) as session:
        run = Run(
            project_id=rows.project_id,
            task_id=session.scalars(sa.select(Task.id)).one(),
            scope=session_id or "key",
            session_id=session_id,
            user=user,
            state="closed",
            opened_at=now,
            last_at=now,
            closed_at=now,
            idle_seconds=60.0,
            tip="",
            size=1,
            details={},
            trajectory_id=trajectory_id,
        )
        session.add(run)
        session.flush()
        announced = uuid.uuid4()
        session.add(
            RunCall(
                completion_id=f"c-{run.id}",
                choice=0,
                project_id=rows.project_id,
                run_id=run.id,
                place=0,
                announced_run_id=announced,
                at=now,
            )
        )
        session.flush()
        settle_run(session, run)
        return announced


def test_a_trajectory_takes_the_comments_on_it_along(rows: Rows) -> None:
    rows.task("a", chats(2))
    with transaction(rows.services.sessions) as session:
        gone, kept = session.scalars(sa.select(Trajectory.id).order_by(Trajectory.seq)).all()
    announced = _run(rows, gone, None)
    with transaction(rows.services.sessions) as session:
        receive_trajectory_feedback(session, rows.project_id, gone, _report(0.25, "crm"))
        receive_run_feedback(session, rows.project_id, announced, _report(0.5))
        receive_trajectory_feedback(session, rows.project_id, kept, _report(0.75))
    delete(rows, "trajectory", str(gone))
    assert _comments(rows) == [("", None, 0.25), ("", None, 0.5), (f"about {SECRET}", None, 0.75)]


def test_a_session_takes_its_id_and_the_comments_along_and_stays_one_unit(rows: Rows) -> None:
    routed = make_routed(rows)
    routed.start_ab({1: 0.5, 2: 0.5})
    routed.ask("s1")
    routed.ask("s2")
    with transaction(rows.services.sessions) as session:
        for name in ("s1", "s2"):
            receive_session_feedback(session, rows.project_id, name, _report())
    delete(rows, "session", "s1")
    (comment, name, reward), other = _comments(rows)
    assert (comment, reward, other) == ("", 1.0, (f"about {SECRET}", "s2", 1.0))
    assert str(name).startswith("erased-")
    with transaction(rows.services.sessions) as session:
        assert session.scalars(sa.select(Feedback.unit).where(Feedback.unit == "s1")).all() == []
    assert sum(arm.sessions for arm in routed.results().arms) == 2
    routed.ask("s1")
    with transaction(rows.services.sessions) as session:
        back = receive_session_feedback(session, rows.project_id, "s1", _report(0.0))
        assert (back.is_new, back.feedback.counted) == (True, True), "a session that comes back is another one"


def test_a_session_of_which_only_feedback_is_known_can_be_deleted(rows: Rows) -> None:
    with transaction(rows.services.sessions) as session:
        receive_session_feedback(session, rows.project_id, "nobody", _report())
    assert delete(rows, "session", "nobody").deletion.affected["feedback"] == 1
    assert _comments(rows)[0][0] == ""
    with pytest.raises(TrajectoryNotFound):
        delete(rows, "session", "nobody")


def test_a_user_takes_the_comments_on_runs_along(rows: Rows) -> None:
    rows.task("a", [*chats(1, word="mine", metadata={"user": "anna"}), *chats(1, word="other")])
    with transaction(rows.services.sessions) as session:
        mine, other = session.scalars(sa.select(Trajectory.id).order_by(Trajectory.seq)).all()
    runs = [_run(rows, mine, None, "anna"), _run(rows, other, None)]
    with transaction(rows.services.sessions) as session:
        for run in runs:
            receive_run_feedback(session, rows.project_id, run, _report())
    delete(rows, "user", "anna")
    assert [comment for comment, _, _ in _comments(rows)] == ["", f"about {SECRET}"]
