"""What a reward that comes late changes of what is learned and judged: datasets, suites, and what schedules count."""

import uuid
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from registry.adapters import get_adapter
from registry.clock import utc_now
from registry.database import transaction
from registry.datasets import reward_snapshots
from registry.datasets.suites import freeze_suite, suite_trajectories
from registry.models import DatasetItem, Job, Schedule, Trajectory
from registry.rewards.rewards import NewReward, give_reward
from registry.schedules.cron import Cron
from registry.schedules.schedules import NewTrajectories, TrainingRequest, When, create_schedule
from registry.schedules.ticks import tick
from registry.schedules.waiting import waiting_for
from registry.tasks import get_task
from registry.trajectories.imports import import_batch, read_item
from tests.registry.conftest import TOKENS, Rows, chats


def _ids(rows: Rows, *, held_out: bool = False, failed: bool = False) -> list[uuid.UUID]:
    """Trajectories of task `a` in order of arrival; `failed` are those with a reward of 0."""
    query = sa.select(Trajectory.id).where(Trajectory.held_out.is_(held_out)).order_by(Trajectory.seq)
    with transaction(rows.services.sessions) as session:
        return list(session.scalars(query.where(Trajectory.reward == 0.0) if failed else query))


def _give(rows: Rows, trajectory_id: uuid.UUID, reward: float, source: str = "environment") -> None:
    with transaction(rows.services.sessions) as session:
        give_reward(session, session.get_one(Trajectory, trajectory_id), NewReward(source, reward, actor="test"))


def _schedule(rows: Rows, when: When) -> uuid.UUID:
    with transaction(rows.services.sessions) as session:
        return create_schedule(
            session,
            rows.project_id,
            "nightly",
            adapter=get_adapter(session, rows.project_id, "bot"),
            task=get_task(session, rows.project_id, "a"),
            when=when,
            request=TrainingRequest({"steps": 5}),
            actor="test",
        ).id


def _waiting(rows: Rows, schedule_id: uuid.UUID) -> int:
    with transaction(rows.services.sessions) as session:
        return waiting_for(session, session.get_one(Schedule, schedule_id)).count


def _tick(rows: Rows, schedule_id: uuid.UUID, **later: float) -> uuid.UUID | None:
    with transaction(rows.services.sessions) as session:
        return tick(session, schedule_id, utc_now() + timedelta(**later))


def _fail(rows: Rows, job_id: uuid.UUID | None) -> None:
    with transaction(rows.services.sessions) as session:
        session.execute(sa.update(Job).where(Job.id == job_id).values(state="failed"))


@pytest.fixture
def mixed(rows: Rows) -> Rows:
    """Task `a`: 20 demonstrations without a reward, and 20 runs that failed."""
    rows.task("a", [*chats(20, word="shown"), *chats(20, word="tried", reward=0.0, reward_source="user")])
    return rows


@pytest.mark.parametrize("when", [Cron("0 3 * * *"), NewTrajectories(1)])
def test_a_schedule_counts_what_was_rewarded_after_the_training(mixed: Rows, when: When) -> None:
    failed, version = _ids(mixed, failed=True), mixed.version("a")
    schedule_id = _schedule(mixed, when)
    assert _waiting(mixed, schedule_id) == 0
    _give(mixed, failed[0], 0.2)
    assert _waiting(mixed, schedule_id) == 0, "still a failure"
    _give(mixed, failed[1], 1.0)
    _give(mixed, failed[2], 0.75)
    assert _waiting(mixed, schedule_id) == 2
    mixed.version("a", parent=version)
    assert _waiting(mixed, schedule_id) == 0, "the version after has learned them"


def test_a_reward_of_what_was_learned_without_one_is_new(mixed: Rows) -> None:
    mixed.version("a")
    schedule_id = _schedule(mixed, NewTrajectories(1))
    [shown] = [each for each in _ids(mixed) if each not in _ids(mixed, failed=True)][:1]
    _give(mixed, shown, 1.0)
    assert _waiting(mixed, schedule_id) == 1
    mixed.version("a")
    assert _waiting(mixed, schedule_id) == 0
    _give(mixed, shown, 1.0, source="thumbs")
    assert _waiting(mixed, schedule_id) == 0, "its effective reward is the same"
    with transaction(mixed.services.sessions) as session:
        items = session.scalars(sa.select(DatasetItem.reward).where(DatasetItem.trajectory_id == shown)).all()
    assert sorted(items, key=str) == [1.0, None], "each dataset says which reward it was made with"


def test_a_job_that_failed_is_not_started_again_for_the_same_rewards(mixed: Rows) -> None:
    failed = _ids(mixed, failed=True)
    mixed.version("a")
    schedule_id = _schedule(mixed, NewTrajectories(2))
    _give(mixed, failed[0], 1.0)
    assert _tick(mixed, schedule_id) is None
    _give(mixed, failed[1], 1.0)
    job_id = _tick(mixed, schedule_id)
    assert job_id is not None
    _fail(mixed, job_id)
    assert _tick(mixed, schedule_id, seconds=1) is None
    _give(mixed, failed[2], 1.0)
    assert _waiting(mixed, schedule_id) == 1
    _give(mixed, failed[3], 1.0)
    assert _tick(mixed, schedule_id, seconds=2) is not None


def test_a_dataset_holds_the_rewards_of_its_time(mixed: Rows) -> None:
    failed = _ids(mixed, failed=True)

    def taken() -> tuple[str, int]:
        with transaction(mixed.services.sessions) as session:
            snapshot = mixed.snapshot(session, "a")
            return snapshot.content_hash, len(snapshot.items)

    before = taken()
    assert taken() == before
    _give(mixed, failed[0], 1.0)
    after = taken()
    assert (after[0] != before[0], after[1]) == (True, before[1] + 1)
    _give(mixed, failed[0], 0.0, source="thumbs")
    assert taken() == after, "another source changes nothing while it is not in effect"


def test_recorded_answers_are_compared_by_late_rewards(rows: Rows) -> None:
    prompt = {"role": "user", "content": "Which way?"}
    answers = [{"messages": [prompt, {"role": "assistant", "content": way}]} for way in ("left", "right")]
    rows.task("a", answers, share=0.01)
    ids = _ids(rows)

    def groups() -> int:
        with transaction(rows.services.sessions) as session:
            return int(reward_snapshots.has_comparison(session, get_task(session, rows.project_id, "a")))

    _give(rows, ids[0], 1.0)
    assert groups() == 0
    _give(rows, ids[1], 0.0)
    assert groups() == 1


def test_what_an_upload_calls_a_failure_stays_one(rows: Rows) -> None:
    rows.task("a", [*chats(20, word="shown"), *chats(20, word="failed", success=False)])

    def used() -> set[uuid.UUID]:
        with transaction(rows.services.sessions) as session:
            suite = freeze_suite(session, get_task(session, rows.project_id, "a"))
            assert suite is not None
            learned = {trajectory_id for trajectory_id, _ in rows.snapshot(session, "a").items}
            return learned | {row.id for row in suite_trajectories(session, suite.id)}

    before = used()
    with transaction(rows.services.sessions) as session:
        failed = set(session.scalars(sa.select(Trajectory.id).where(Trajectory.success.is_(False))))
    assert len(failed) == 20
    for each in failed:
        _give(rows, each, 1.0)
    assert used() == before
    assert before & failed == set()


def test_a_frozen_suite_stays_and_the_next_knows_the_reward(mixed: Rows) -> None:
    def frozen() -> tuple[uuid.UUID, int, set[uuid.UUID]]:
        with transaction(mixed.services.sessions) as session:
            suite = freeze_suite(session, get_task(session, mixed.project_id, "a"))
            assert suite is not None
            return suite.id, suite.number, {row.id for row in suite_trajectories(session, suite.id)}

    suite_id, number, items = frozen()
    assert frozen() == (suite_id, number, items)
    worse, better = min(items), _ids(mixed, held_out=True, failed=True)[0]
    _give(mixed, worse, 0.0)
    _give(mixed, better, 1.0)
    after = frozen()
    assert (after[1], after[2]) == (number + 1, items - {worse} | {better})
    with transaction(mixed.services.sessions) as session:
        assert {row.id for row in suite_trajectories(session, suite_id)} == items


def test_sending_an_upload_again_keeps_what_was_rewarded_since(rows: Rows) -> None:
    sent: list[dict[str, Any]] = chats(1, reward=0.0, reward_source="user")
    rows.task("a", sent)
    with transaction(rows.services.sessions) as session:
        one = session.scalars(sa.select(Trajectory.id)).one()
    _give(rows, one, 1.0)
    with transaction(rows.services.sessions) as session:
        [result] = import_batch(session, rows.project_id, [read_item(1, sent[0])], default_task="a", tokens=TOKENS)
        row = session.scalars(sa.select(Trajectory)).one()
        assert (result.status, result.id) == ("duplicate", one)
        assert (row.reward, row.reward_source) == (1.0, "environment")
