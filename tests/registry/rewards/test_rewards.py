"""Rewards of trajectories: the order of sources, the first of each, means of answers, judges; many at once."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from registry.database import transaction
from registry.errors import Invalid, RewardDiffers
from registry.models import Trajectory, TrajectoryReward
from registry.rewards.rewards import NewReward, give_reward, rewards_of_trajectory, set_judge_rewards
from registry.tasks import get_task
from tests.registry.conftest import Rows, chats, refused_as_immutable

Effective = tuple[float | None, str | None]


def _one(rows: Rows, **envelope: Any) -> uuid.UUID:
    """The only trajectory of task `a`."""
    rows.task("a", chats(1, **envelope))
    with transaction(rows.services.sessions) as session:
        return session.scalars(sa.select(Trajectory.id)).one()


def _give(rows: Rows, trajectory_id: uuid.UUID, source: str, reward: float, **values: Any) -> Effective:
    """The effective reward after it."""
    with transaction(rows.services.sessions) as session:
        row = session.get_one(Trajectory, trajectory_id)
        give_reward(session, row, NewReward(source, reward, actor="test", **values))
        return row.reward, row.reward_source


def _effective(rows: Rows, trajectory_id: uuid.UUID) -> Effective:
    with transaction(rows.services.sessions) as session:
        row = session.get_one(Trajectory, trajectory_id)
        return row.reward, row.reward_source


def test_the_order_of_sources_and_not_that_of_arrival(rows: Rows) -> None:
    one = _one(rows)
    assert _effective(rows, one) == (None, None)
    assert _give(rows, one, "thumbs", 0.1) == (0.1, "thumbs")
    assert _give(rows, one, "crm", 0.2) == (0.1, "thumbs"), "of others, the first"
    assert _give(rows, one, "user", 0.3) == (0.3, "user")
    assert _give(rows, one, "grader", 0.4) == (0.4, "grader")
    assert _give(rows, one, "environment", 0.5) == (0.5, "environment")
    assert _give(rows, one, "other", 1.0) == (0.5, "environment")
    with transaction(rows.services.sessions) as session:
        found = rewards_of_trajectory(session, session.get_one(Trajectory, one))
    assert [(row.source, row.reward) for row in found] == [
        ("thumbs", 0.1),
        ("crm", 0.2),
        ("user", 0.3),
        ("grader", 0.4),
        ("environment", 0.5),
        ("other", 1.0),
    ]


def test_the_reward_of_an_upload_is_the_first_of_its_source(rows: Rows) -> None:
    one = _one(rows, reward=0.25, reward_source="user")
    with pytest.raises(RewardDiffers, match=r"the reward 0\.25 already"):
        _give(rows, one, "user", 1.0)
    assert _give(rows, one, "user", 0.25) == (0.25, "user")
    assert _give(rows, one, "grader", 1.0) == (1.0, "grader")


def test_an_upload_s_reward_without_a_source_gives_way_to_named_ones(rows: Rows) -> None:
    one = _one(rows, reward=-7.5)
    assert _effective(rows, one) == (-7.5, None)
    assert _give(rows, one, "thumbs", 0.5) == (-7.5, None), "it came first of the others"
    assert _give(rows, one, "user", 1.0) == (1.0, "user")


def test_answers_count_by_their_mean_until_the_whole_is_rewarded(rows: Rows) -> None:
    one = _one(rows)
    assert _give(rows, one, "user", 0.0, completion_id="c1") == (0.0, "user")
    assert _give(rows, one, "user", 1.0, completion_id="c2") == (0.5, "user")
    with pytest.raises(RewardDiffers):
        _give(rows, one, "user", 0.0, completion_id="c2")
    assert _give(rows, one, "user", 0.9) == (0.9, "user")
    assert _give(rows, one, "user", 0.0, completion_id="c3") == (0.9, "user")


def test_judges_are_apart_unless_the_task_says_so(rows: Rows) -> None:
    one = _one(rows)
    assert _give(rows, one, "judge:strict", 0.7, comment="polite") == (None, None)
    for judge_rewards, expected in (
        ("fill", (0.7, "judge:strict")),
        ("apart", (None, None)),
        ("fill", (0.7, "judge:strict")),
    ):
        with transaction(rows.services.sessions) as session:
            set_judge_rewards(session, get_task(session, rows.project_id, "a"), judge_rewards)
        assert _effective(rows, one) == expected
    assert _give(rows, one, "judge:mild", 1.0) == (0.7, "judge:strict")
    assert _give(rows, one, "thumbs", 0.0) == (0.0, "thumbs"), "never mixed with people's"
    with pytest.raises(Invalid, match="judge_rewards"), transaction(rows.services.sessions) as session:
        set_judge_rewards(session, get_task(session, rows.project_id, "a"), "mix")


@pytest.mark.parametrize("source", ["A Person", "", "judge:", "judge:judge:x", "x:y", "\0", "\ud800"])
def test_sources_have_names(rows: Rows, source: str) -> None:
    one = _one(rows)
    with pytest.raises(Invalid):
        _give(rows, one, source, 1.0)


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), -float("inf")])
def test_rewards_are_finite(rows: Rows, reward: float) -> None:
    one = _one(rows)
    with pytest.raises(Invalid):
        _give(rows, one, "user", reward)


def test_a_reward_can_not_be_changed(rows: Rows) -> None:
    _give(rows, _one(rows), "user", 1.0)
    with refused_as_immutable("trajectory_rewards"), transaction(rows.services.sessions) as session:
        session.execute(sa.update(TrajectoryReward).values(reward=0.0))


def test_many_sources_at_once_and_one_source_many_times(rows: Rows) -> None:
    one = _one(rows)

    def attempt(number: int) -> str:
        source = ("environment", "grader", "user", "a", "b", "c")[number % 6]
        try:
            _give(rows, one, source, float(number // 6) / 4)
        except RewardDiffers:
            return "differs"
        return source

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(attempt, range(24)))
    assert sorted(each for each in done if each != "differs") == ["a", "b", "c", "environment", "grader", "user"]
    with transaction(rows.services.sessions) as session:
        row = session.get_one(Trajectory, one)
        given = {each.source: each.reward for each in rewards_of_trajectory(session, row)}
        assert (row.reward, row.reward_source) == (given["environment"], "environment")
        assert len(given) == 6


def test_judges_are_let_in_while_one_gives_its_reward(rows: Rows) -> None:
    """Whichever is first, the effective reward follows from what stands in the end."""
    rows.task("a", chats(12))
    with transaction(rows.services.sessions) as session:
        ids = list(session.scalars(sa.select(Trajectory.id)))

    def let_in(_: object) -> None:
        with transaction(rows.services.sessions) as session:
            set_judge_rewards(session, get_task(session, rows.project_id, "a"), "fill")

    with ThreadPoolExecutor(8) as pool:
        given = [pool.submit(_give, rows, each, "judge:strict", 1.0) for each in ids]
        pool.submit(let_in, None).result()
        for each in given:
            each.result()
    assert {_effective(rows, each) for each in ids} == {(1.0, "judge:strict")}
