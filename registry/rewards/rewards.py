"""Rewards of trajectories: given once by each source, and which of them is in effect.

All that were given are kept. A trajectory's own `reward` and `reward_source` are those in effect: trainings, suites and
schedules read nothing else. The order of sources is `environment`, `grader`, `user`, then others as they arrived; what
an upload says without naming a source is one of these. Judges' rewards count only where the task says so, and only
where no other source gave one.

A source that rewards single answers of a run gives the run their mean, until it rewards the run itself.
"""

import math
import uuid
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Double, Function, Select, String, case, cast, func, literal, null, select, update
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.orm import Session, joinedload

from registry.clock import utc_now
from registry.database import one_of
from registry.errors import Invalid, RewardDiffers
from registry.json_text import is_storable, show
from registry.models import JUDGE_REWARDS, Task, Trajectory, TrajectoryReward
from registry.names import is_valid_name

JUDGE_PREFIX = "judge:"
UPLOAD = "upload"
"""Source of a reward that an upload names no source for."""
ORDER = ("environment", "grader", "user")
"""Sources before all others, the first one first."""


@dataclass(frozen=True)
class NewReward:
    source: str
    """A name, or `judge:` and the name of a judge."""
    reward: float
    actor: str
    comment: str = ""
    completion_id: str | None = None
    """The answer that is rewarded; None for the whole trajectory."""
    feedback_seq: int | None = None
    """The feedback that gave it."""


def give_reward(session: Session, trajectory: Trajectory, new: NewReward) -> tuple[TrajectoryReward, bool]:
    """The reward, and whether it is new: the first of its source stands, and the same again changes nothing.

    Raises:
        Invalid: the reward, its source or its comment.
        RewardDiffers: the source has given another reward.
    """
    check_reward(new)
    lock_to_reward(session, trajectory.project_id, [trajectory.id])
    created = session.scalar(
        insert(TrajectoryReward)
        .values(
            trajectory_id=trajectory.id,
            source=new.source,
            completion_id=new.completion_id,
            reward=new.reward,
            comment=new.comment,
            actor=new.actor,
            feedback_seq=new.feedback_seq,
            at=utc_now(),
        )
        .on_conflict_do_nothing(index_elements=["trajectory_id", "source", "completion_id"])
        .returning(TrajectoryReward)
    )
    if created is not None:
        refresh_rewards(session, trajectory.project_id, [trajectory.id])
        return created, True
    known = session.scalars(
        select(TrajectoryReward).where(
            TrajectoryReward.trajectory_id == trajectory.id,
            TrajectoryReward.source == new.source,
            TrajectoryReward.completion_id.is_not_distinct_from(new.completion_id),
        )
    ).one()
    if known.reward != new.reward:
        raise RewardDiffers(
            f"{new.source!r} has given trajectory {trajectory.id} the reward {known.reward:g} already, which stands; "
            f"got {new.reward:g}. Give another one under another source."
        )
    return known, False


def check_reward(new: NewReward) -> None:
    """Raises Invalid."""
    if not is_valid_name(new.source.removeprefix(JUDGE_PREFIX)):
        raise Invalid(f"reward source {show(new.source)}; expected a name such as `user`, or `judge:` and one")
    if not math.isfinite(new.reward):
        raise Invalid(f"reward is {new.reward}; expected a finite number")
    if not is_storable(new.comment):
        raise Invalid("the comment has a NUL or half a surrogate pair in it; expected text")


def record_uploaded(session: Session, trajectory_ids: Collection[uuid.UUID]) -> None:
    """Keep what the uploads of new trajectories say of their rewards as the first rewards of their sources."""
    uploaded = select(
        Trajectory.id,
        func.coalesce(Trajectory.reward_source, UPLOAD),
        Trajectory.reward,
        literal(""),
        literal(UPLOAD),
        Trajectory.created_at,
    ).where(one_of(Trajectory.id, trajectory_ids), Trajectory.reward.is_not(None))
    columns = ["trajectory_id", "source", "reward", "comment", "actor", "at"]
    session.execute(insert(TrajectoryReward).from_select(columns, uploaded.order_by(Trajectory.seq)))


def set_judge_rewards(session: Session, task: Task, judge_rewards: str) -> None:
    """Say whether judges' rewards are used where no other source gave one: `fill`, or `apart` if they never are.

    Raises:
        Invalid: another word.
    """
    if judge_rewards not in JUDGE_REWARDS:
        raise Invalid(f"judge_rewards is {show(judge_rewards)}; expected one of {', '.join(JUDGE_REWARDS)}")
    take_turn_alone(session, task.project_id)
    session.refresh(task, ["judge_rewards"])
    if task.judge_rewards == judge_rewards:
        return
    task.judge_rewards = judge_rewards
    session.flush()
    judged = (
        select(Trajectory.id)
        .join(TrajectoryReward)
        .where(Trajectory.task_id == task.id, TrajectoryReward.source.startswith(JUDGE_PREFIX))
    )
    refresh_rewards(session, task.project_id, session.scalars(judged.distinct()).all())


def rewards_of_trajectory(session: Session, trajectory: Trajectory) -> list[TrajectoryReward]:
    """All rewards that were given to it, in order of arrival."""
    query = select(TrajectoryReward).where(TrajectoryReward.trajectory_id == trajectory.id)
    return list(session.scalars(query.options(joinedload(TrajectoryReward.feedback)).order_by(TrajectoryReward.seq)))


def refresh_rewards(session: Session, project_id: uuid.UUID, trajectory_ids: Collection[uuid.UUID]) -> None:
    """Set the effective rewards of trajectories by all that were given. Their rows are locked from here on."""
    if not trajectory_ids:
        return
    lock_to_reward(session, project_id, trajectory_ids)
    best = _best(trajectory_ids).subquery("best")
    # An upload that names no source is shown without one, as it was sent.
    source = case((best.c.source == UPLOAD, null()), else_=best.c.source)
    changed = (
        update(Trajectory)
        .where(Trajectory.id == best.c.id)
        .where(Trajectory.reward.is_distinct_from(best.c.reward) | Trajectory.reward_source.is_distinct_from(source))
        .values(reward=best.c.reward, reward_source=source, rewarded_at=utc_now())
    )
    session.execute(changed.execution_options(synchronize_session=False))
    for row in session.identity_map.values():
        if isinstance(row, Trajectory) and row.id in set(trajectory_ids):
            session.expire(row, ["reward", "reward_source", "rewarded_at"])


def take_turn_alone(session: Session, project_id: uuid.UUID) -> None:
    """Wait until no transaction is giving rewards in the project; others wait from here on until this one ends.

    Whoever takes it holds the locks of adapters, routes and runs already, if any, and none of a trajectory's row.
    """
    session.execute(select(func.pg_advisory_xact_lock(_turn(project_id))))


def take_turn_with_others(session: Session, project_id: uuid.UUID) -> None:
    """The same, beside others that do no more than give rewards."""
    session.execute(select(func.pg_advisory_xact_lock_shared(_turn(project_id))))


def _turn(project_id: uuid.UUID) -> Function[int]:
    return func.hashtextextended(f"rewards of {project_id}", 0)


def _best(trajectory_ids: Collection[uuid.UUID]) -> Select[tuple[uuid.UUID, float | None, str | None]]:
    """(id, reward, source) of each trajectory; both are null where no reward counts."""
    whole, answers = func.max(TrajectoryReward.reward), func.avg(TrajectoryReward.reward)
    by_source = (
        select(
            TrajectoryReward.trajectory_id,
            TrajectoryReward.source,
            func.coalesce(whole.filter(TrajectoryReward.completion_id.is_(None)), cast(answers, Double)).label(
                "reward"
            ),
            func.min(TrajectoryReward.seq).label("arrived"),
        )
        .where(one_of(TrajectoryReward.trajectory_id, trajectory_ids))
        .group_by(TrajectoryReward.trajectory_id, TrajectoryReward.source)
        .subquery("by_source")
    )
    is_judge = by_source.c.source.startswith(JUDGE_PREFIX)
    rank = case(
        *((by_source.c.source == name, place) for place, name in enumerate(ORDER)),
        (is_judge, len(ORDER) + 1),
        else_=len(ORDER),
    )
    return (
        select(Trajectory.id, by_source.c.reward, cast(by_source.c.source, String).label("source"))
        .join(Task, Task.id == Trajectory.task_id)
        .outerjoin(
            by_source,
            (by_source.c.trajectory_id == Trajectory.id) & (~is_judge | (Task.judge_rewards == "fill")),
        )
        .where(one_of(Trajectory.id, trajectory_ids))
        .ext(distinct_on(Trajectory.id))
        .order_by(Trajectory.id, rank, by_source.c.arrived)
    )


def lock_to_reward(session: Session, project_id: uuid.UUID, trajectory_ids: Collection[uuid.UUID]) -> None:
    """Lock the rows against other rewards and deletions, in the order of all who lock several; datasets and suites,
    which only need the rows to stay, don't wait."""
    take_turn_with_others(session, project_id)
    locked = select(Trajectory.id).where(one_of(Trajectory.id, trajectory_ids)).order_by(Trajectory.id)
    session.execute(locked.with_for_update(key_share=True))
