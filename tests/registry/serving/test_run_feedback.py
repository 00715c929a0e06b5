"""Feedback on runs, sessions and trajectories: what is rewarded, when, once; what waits; what routes count; races."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from registry.clock import utc_now
from registry.database import transaction
from registry.errors import FeedbackDiffers, Invalid, InvalidName, TrajectoryNotFound
from registry.models import Feedback, Project, Run, RunCall, Task, Trajectory
from registry.rewards.pending import SESSION_REACH, settle_run
from registry.rewards.rewards import rewards_of_trajectory
from registry.serving.feedback import Rating, Received, receive_feedback
from registry.serving.reported import FeedbackFilter, list_feedback
from registry.serving.routes import Terms
from registry.serving.run_feedback import (
    receive_run_feedback,
    receive_session_feedback,
    receive_trajectory_feedback,
)
from registry.trajectories.imports import import_batch, read_item
from tests.registry.conftest import TOKENS, Rows, chats
from tests.registry.routed import Routed, make_routed

Effective = tuple[float | None, str | None]


@dataclass
class Recorded:
    """Runs as recording leaves them, of task `a`."""

    routed: Routed

    def open(self, session_id: str | None, *completions: str, ago: timedelta = timedelta(0)) -> uuid.UUID:
        """A run with these answers, the last of which was given so long ago."""
        at = utc_now() - ago
        with transaction(self.rows.services.sessions) as session:
            run = Run(
                project_id=self.rows.project_id,
                task_id=session.scalars(sa.select(Task.id).where(Task.name == "a")).one(),
                scope=session_id or "key",
                session_id=session_id,
                state="open",
                opened_at=at,
                last_at=at,
                idle_seconds=600.0,
                tip=uuid.uuid4().hex,
                size=1,
                details={},
            )
            session.add(run)
            session.flush()
            session.add_all(
                RunCall(
                    completion_id=completion,
                    choice=0,
                    project_id=self.rows.project_id,
                    run_id=run.id,
                    place=place,
                    at=at,
                )
                for place, completion in enumerate(completions)
            )
            return run.id

    def write(self, run_id: uuid.UUID) -> uuid.UUID:
        """Make a trajectory of it."""
        with transaction(self.rows.services.sessions) as session:
            [item] = chats(1, word=run_id.hex, session_id=session.get_one(Run, run_id).session_id)
            sent = [read_item(1, {**item, "trajectory_id": str(run_id)})]
            [result] = import_batch(session, self.rows.project_id, sent, default_task="a", tokens=TOKENS)
            run = session.get_one(Run, run_id)
            run.state, run.closed_at, run.trajectory_id = "closed", utc_now(), result.id
            settle_run(session, run)
            assert result.id is not None
            return result.id

    def state(self, run_id: uuid.UUID) -> str:
        with transaction(self.rows.services.sessions) as session:
            return session.get_one(Run, run_id).state

    def effective(self, trajectory_id: uuid.UUID) -> Effective:
        with transaction(self.rows.services.sessions) as session:
            row = session.get_one(Trajectory, trajectory_id)
            return row.reward, row.reward_source

    def answer(self, completion_id: str, reward: float, source: str = "user") -> Received:
        with transaction(self.rows.services.sessions) as session:
            return receive_feedback(session, self.rows.project_id, completion_id, Rating(reward, "test", source))

    def run(self, run_id: uuid.UUID, reward: float, source: str = "user") -> Received:
        with transaction(self.rows.services.sessions) as session:
            return receive_run_feedback(session, self.rows.project_id, run_id, Rating(reward, "test", source))

    def session(self, session_id: str, reward: float, source: str = "user", comment: str = "") -> Received:
        with transaction(self.rows.services.sessions) as session:
            report = Rating(reward, "test", source, comment)
            return receive_session_feedback(session, self.rows.project_id, session_id, report)

    def trajectory(self, trajectory_id: uuid.UUID, reward: float, source: str = "user") -> Received:
        with transaction(self.rows.services.sessions) as session:
            report = Rating(reward, "test", source)
            return receive_trajectory_feedback(session, self.rows.project_id, trajectory_id, report)

    @property
    def rows(self) -> Rows:
        return self.routed.rows


@pytest.fixture
def recorded(rows: Rows) -> Recorded:
    return Recorded(make_routed(rows))


@pytest.mark.parametrize("written_first", [True, False])
def test_a_run_s_reward_closes_it_and_is_its_trajectory_s(recorded: Recorded, written_first: bool) -> None:
    run = recorded.open("s1", "c1")
    if written_first:
        trajectory = recorded.write(run)
        received = recorded.run(run, 0.75, "environment")
        assert (received.runs, received.trajectories) == ((), (trajectory,))
    else:
        received = recorded.run(run, 0.75, "environment")
        assert (received.runs, received.trajectories, recorded.state(run)) == ((run,), (), "closing")
        trajectory = recorded.write(run)
    assert recorded.effective(trajectory) == (0.75, "environment")
    again = recorded.run(run, 0.75, "environment")
    assert (again.is_new, again.trajectories) == (False, (trajectory,))
    with pytest.raises(FeedbackDiffers, match=r"the reward 0\.75 already"):
        recorded.run(run, 0.5, "environment")
    recorded.run(run, 0.0, "user")
    assert recorded.effective(trajectory) == (0.75, "environment"), "the order of sources"


@pytest.mark.parametrize("written_first", [True, False])
def test_a_session_s_reward_is_that_of_its_runs(recorded: Recorded, written_first: bool) -> None:
    runs = [recorded.open("s1"), recorded.open("s1")]
    other = recorded.open("s2")
    before = [recorded.write(run) for run in runs] if written_first else []
    received = recorded.session("s1", 1.0)
    assert set(received.runs) == (set() if written_first else set(runs))
    assert recorded.state(other) == "open"
    trajectories = before or [recorded.write(run) for run in runs]
    assert [recorded.effective(each) for each in trajectories] == [(1.0, "user")] * 2
    assert recorded.effective(recorded.write(other)) == (None, None)


def test_a_session_is_rewarded_again_once_something_is_new(recorded: Recorded) -> None:
    first = recorded.write(recorded.open("s1", ago=timedelta(minutes=5)))
    assert recorded.session("s1", 0.0).is_new
    assert not recorded.session("s1", 0.0).is_new
    with pytest.raises(FeedbackDiffers):
        recorded.session("s1", 1.0)
    second = recorded.write(recorded.open("s1"))
    received = recorded.session("s1", 1.0)
    assert received.is_new
    assert recorded.effective(second) == (1.0, "user")
    assert recorded.effective(first) == (0.0, "user"), "the first of its source stands"


def test_a_session_s_reward_reaches_a_day_back_from_its_last_answer(recorded: Recorded) -> None:
    """However late it comes itself, and whether runs are written before or after."""
    week = timedelta(days=7)
    old = recorded.open("s1", ago=week + SESSION_REACH + timedelta(hours=1))
    near, last = recorded.open("s1", ago=week + timedelta(hours=20)), recorded.open("s1", ago=week)
    written = {run: recorded.write(run) for run in (old, last)}
    recorded.session("s1", 1.0)
    written[near] = recorded.write(near)
    assert {run: recorded.effective(written[run])[0] for run in (old, near, last)} == {old: None, near: 1.0, last: 1.0}


def test_a_reward_waits_for_a_session_that_is_still_on_its_way(recorded: Recorded) -> None:
    received = recorded.session("late", 0.5, "environment")
    assert (received.is_new, received.runs, received.trajectories) == (True, (), ())
    assert not recorded.session("late", 0.5, "environment").is_new
    begun_before = recorded.write(recorded.open("late", ago=timedelta(seconds=1)))
    assert recorded.effective(begun_before) == (0.5, "environment")
    with transaction(recorded.rows.services.sessions) as session:
        run = session.scalars(sa.select(Run)).one()
        run.opened_at = run.opened_at - timedelta(seconds=1)
    begun_after = recorded.open("late")
    with transaction(recorded.rows.services.sessions) as session:
        session.get_one(Run, begun_after).opened_at = utc_now()
    assert recorded.effective(recorded.write(begun_after)) == (None, None), "it was not there when it was rewarded"


def test_a_reward_waits_for_a_run_and_finds_it_by_the_id_that_was_announced(recorded: Recorded) -> None:
    announced = uuid.uuid4()
    assert recorded.run(announced, 0.25).is_new
    run = recorded.open("s1", "c1")
    with transaction(recorded.rows.services.sessions) as session:
        session.execute(sa.update(RunCall).values(announced_run_id=announced))
    trajectory = recorded.write(run)
    assert recorded.effective(trajectory) == (0.25, "user")
    received = recorded.run(announced, 1.0, "grader")
    assert received.trajectories == (trajectory,)


def test_answers_of_a_run_count_by_their_mean_and_close_nothing(recorded: Recorded) -> None:
    answers = [recorded.routed.ask("s1") for _ in range(3)]
    run = recorded.open("s1", *answers)
    early = recorded.answer(answers[0], 0.0)
    assert (early.runs, early.trajectories, recorded.state(run)) == ((), (), "open")
    trajectory = recorded.write(run)
    assert recorded.effective(trajectory) == (0.0, "user")
    assert recorded.answer(answers[1], 1.0).trajectories == (trajectory,)
    assert recorded.effective(trajectory) == (0.5, "user")
    recorded.run(run, 0.9)
    recorded.answer(answers[2], 1.0)
    assert recorded.effective(trajectory) == (0.9, "user"), "what is said of the whole"


def test_several_choices_are_runs_of_one_answer(recorded: Recorded) -> None:
    answer = recorded.routed.ask("s1")
    runs = [recorded.open("s1", answer), recorded.open("s1")]
    with transaction(recorded.rows.services.sessions) as session:
        session.add(
            RunCall(
                completion_id=answer,
                choice=1,
                project_id=recorded.rows.project_id,
                run_id=runs[1],
                place=0,
                at=utc_now(),
            )
        )
    trajectories = [recorded.write(run) for run in runs]
    assert set(recorded.answer(answer, 1.0).trajectories) == set(trajectories)


def test_a_stored_trajectory_is_rewarded_by_its_id(recorded: Recorded) -> None:
    with transaction(recorded.rows.services.sessions) as session:
        uploaded = session.scalars(sa.select(Trajectory.id).limit(1)).one()
    assert recorded.trajectory(uploaded, 0.5).trajectories == (uploaded,)
    assert recorded.effective(uploaded) == (0.5, "user")
    assert not recorded.trajectory(uploaded, 0.5).is_new
    with pytest.raises(FeedbackDiffers):
        recorded.trajectory(uploaded, 0.0)
    with pytest.raises(TrajectoryNotFound):
        recorded.trajectory(uuid.uuid4(), 0.5)


def test_one_source_can_not_say_two_things_by_two_names(recorded: Recorded) -> None:
    run = recorded.open("s1")
    trajectory = recorded.write(run)
    recorded.session("s1", 1.0)
    assert recorded.run(run, 1.0).is_new
    with pytest.raises(FeedbackDiffers, match=f"trajectory {trajectory} the reward 1 already"):
        recorded.trajectory(trajectory, 0.0)
    with transaction(recorded.rows.services.sessions) as session:
        found = rewards_of_trajectory(session, session.get_one(Trajectory, trajectory))
        assert [(row.source, row.reward) for row in found] == [("user", 1.0)]
        kept = session.scalars(sa.select(Feedback).where(Feedback.trajectory_id == trajectory)).all()
    assert kept == [], "what is refused leaves nothing behind"


def test_a_session_counts_once_for_a_route(recorded: Recorded) -> None:
    routed = recorded.routed
    routed.start_ab({1: 0.5, 2: 0.5})
    answer = routed.ask("s1")
    received = recorded.session("s1", 1.0)
    assert received.feedback.counted
    assert received.route is not None
    assert received.feedback.version_id is not None
    assert not recorded.answer(answer, 0.0).feedback.counted
    assert not recorded.session("s1", 0.5, "grader").feedback.counted
    run = recorded.open("s1", answer)
    assert not recorded.run(run, 0.5, "environment").feedback.counted
    early = routed.ask("s2")
    assert recorded.answer(early, 0.0).feedback.counted
    assert not recorded.session("s2", 1.0).feedback.counted
    arms = routed.results().arms
    assert sum(arm.sessions for arm in arms) == 2
    mine = next(arm for arm in arms if f"bot@{arm.version}" == routed.answers[answer])
    assert mine.sessions >= 1


def test_a_run_without_a_session_counts_once(recorded: Recorded) -> None:
    routed = recorded.routed
    routed.start_ab({1: 0.5, 2: 0.5})
    by_version: dict[str, list[str]] = {}
    while len(by_version) < 2 or min(map(len, by_version.values())) < 3:
        answer = routed.ask()
        by_version.setdefault(routed.answers[answer], []).append(answer)
    one, two = by_version.values()
    assert recorded.run(recorded.open(None, *one[:2]), 1.0).feedback.counted
    mixed = recorded.run(recorded.open(None, one[2], two[0]), 1.0)
    assert not mixed.feedback.counted, "it is evidence for neither of the versions"
    assert recorded.answer(two[1], 0.0).feedback.counted
    assert not recorded.run(recorded.open(None, two[1], two[2]), 1.0).feedback.counted, "an answer of it has counted"


def test_a_route_counts_its_own_source_of_a_session(recorded: Recorded) -> None:
    recorded.routed.start_ab({1: 0.5, 2: 0.5}, terms=Terms(reward_source="environment"))
    recorded.routed.ask("s1")
    assert not recorded.session("s1", 1.0).feedback.counted
    assert recorded.session("s1", 0.0, "environment").feedback.counted


def test_a_canary_is_stopped_by_the_rewards_of_sessions(recorded: Recorded) -> None:
    routed = recorded.routed
    routed.start_canary(2)
    outcomes = []
    for number in range(80):
        answer = routed.ask(f"s{number}")
        outcomes.append(recorded.session(f"s{number}", float(routed.answers[answer] == "bot@1")).outcome)
        if outcomes[-1]:
            break
    assert outcomes[-1] == "stopped"


def test_a_session_on_two_routes_counts_for_each(rows: Rows) -> None:
    first = make_routed(rows)
    other = replace(rows, adapter="helper", task_names=[])
    with transaction(rows.services.sessions) as session:
        other.make_adapter(session)
    for passed in (True, True):
        other.version("a", passed=passed)
    second = Routed(other)
    second.move_champion(1)
    for routed in (first, second):
        routed.start_ab({1: 0.5, 2: 0.5})
    first.ask("s1")
    second.ask("s1", model="helper")
    recorded = Recorded(first)
    recorded.session("s1", 1.0, comment="both helped")
    assert [sum(arm.sessions for arm in routed.results().arms) for routed in (first, second)] == [1, 1]
    with transaction(rows.services.sessions) as session:
        listed = list_feedback(session, rows.project_id, FeedbackFilter(), before=None, limit=9)
        assert session.scalar(sa.select(sa.func.count()).select_from(Feedback)) == 2
    assert [each.feedback.comment for each in listed] == ["both helped"]


def test_other_projects_are_not_reached(recorded: Recorded) -> None:
    run = recorded.open("s1", "c1")
    trajectory = recorded.write(run)
    with transaction(recorded.rows.services.sessions) as session:
        other = Project(name="other")
        session.add(other)
        session.flush()
        spy = Rating(0.0, "spy")
        assert receive_run_feedback(session, other.id, run, spy).trajectories == ()
        assert receive_session_feedback(session, other.id, "s1", spy).trajectories == ()
    with pytest.raises(TrajectoryNotFound), transaction(recorded.rows.services.sessions) as session:
        receive_trajectory_feedback(session, other.id, trajectory, Rating(0.0, "spy"))
    assert recorded.effective(trajectory) == (None, None)
    assert recorded.run(run, 1.0).is_new, "another project's word is not in the way"


@pytest.mark.parametrize("session_id", ["", "\0", "\ud800", "x" * 513])
def test_sessions_have_ids(recorded: Recorded, session_id: str) -> None:
    with pytest.raises(Invalid):
        recorded.session(session_id, 1.0)


def test_what_is_refused(recorded: Recorded) -> None:
    for reward in (-0.1, 1.1, float("nan")):
        with pytest.raises(Invalid):
            recorded.session("s1", reward)
    for source in ("A Person", "judge:strict"):
        with pytest.raises(InvalidName):
            recorded.session("s1", 1.0, source)


def _at_once(count: int, work: Any) -> list[Any]:
    together = threading.Barrier(count)

    def begin(number: int) -> Any:
        together.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


def test_a_run_is_written_while_it_is_rewarded(recorded: Recorded) -> None:
    """Two replicas: whichever is first, no reward is lost."""
    for number in range(12):
        answer = recorded.routed.ask(f"s{number}")
        run = recorded.open(f"s{number}", answer)

        def work(place: int, run: uuid.UUID = run, answer: str = answer, number: int = number) -> uuid.UUID | Received:
            if place == 0:
                return recorded.write(run)
            if place == 1:
                return recorded.run(run, 0.5, "grader")
            return recorded.session(f"s{number}", 0.25) if place == 2 else recorded.answer(answer, 1.0, "thumbs")

        trajectory = _at_once(4, work)[0]
        with transaction(recorded.rows.services.sessions) as session:
            row = session.get_one(Trajectory, trajectory)
            given = {each.source: each.reward for each in rewards_of_trajectory(session, row)}
            assert given == {"grader": 0.5, "user": 0.25, "thumbs": 1.0}
            assert (row.reward, row.reward_source) == (0.5, "grader")


def test_two_replicas_report_one_session_at_once(recorded: Recorded) -> None:
    for number in range(4):
        trajectory = recorded.write(recorded.open(f"s{number}"))

        def work(place: int, number: int = number) -> str:
            try:
                return str(recorded.session(f"s{number}", float(place % 2)).is_new)
            except FeedbackDiffers:
                return "differs"

        done = _at_once(6, work)
        assert sorted(done) == ["False"] * 2 + ["True"] + ["differs"] * 3
        reward, source = recorded.effective(trajectory)
        assert source == "user"
        with transaction(recorded.rows.services.sessions) as session:
            [found] = session.scalars(sa.select(Feedback.reward).where(Feedback.session_id == f"s{number}")).all()
        assert found == reward


def test_feedback_at_a_moment(recorded: Recorded) -> None:
    """Its time is that of its report, by which late runs are told apart."""
    before = utc_now()
    at: datetime = recorded.session("s1", 1.0).feedback.at
    assert before <= at <= utc_now()
