"""Trajectories as rows: hashed, inserted once, read back. Knows no format.

`registry.trajectories.conversations` knows what a conversation must look like, `registry.trajectories.formats` how one
is sent, `registry.trajectories.holdout` which are held out.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, Text, column, false, func, literal, select, text, true
from sqlalchemy.dialects.postgresql import ARRAY, JSON, insert
from sqlalchemy.orm import InstrumentedAttribute, Session, defer, joinedload

from registry.clock import utc_now
from registry.errors import TrajectoryNotFound
from registry.models import Task, Trajectory, TrajectoryWords
from registry.rewards.rewards import record_uploaded
from registry.tasks import find_tasks
from registry.trajectories.draft import Draft
from registry.trajectories.words import matches

Key = tuple[uuid.UUID, str]
"""(task id, content hash): what makes a trajectory the same one."""
_NEAR = 5000
"""Rows along which a search for words walks before it looks into their index."""
_LARGEST_SEQ = 2**63 - 1


@dataclass(frozen=True, slots=True)
class NewTrajectory:
    task: Task
    draft: Draft
    tokens: int
    id: uuid.UUID
    beginning_hash: str | None
    held_out: bool

    @property
    def key(self) -> Key:
        return self.task.id, self.draft.content_hash


def insert_trajectories(session: Session, project_id: uuid.UUID, new: Sequence[NewTrajectory]) -> set[uuid.UUID]:
    """Insert the trajectories that are not stored yet, in this order. Returns the ids of those inserted.

    Inserts of one project take turns from here to the end of their transaction: two that overlap in any order
    can't deadlock, and no row becomes visible after one with a greater `seq`, which a reader's cursor would
    then skip.
    """
    if not new:
        return set()
    lock_trajectories(session, project_id)
    now = utc_now().isoformat()
    rows = [
        {
            "id": str(item.id),
            "project_id": str(project_id),
            "task_id": str(item.task.id),
            "trajectory_id": item.draft.trajectory_id,
            "session_id": item.draft.session_id,
            "content_hash": item.draft.content_hash,
            "beginning_hash": item.beginning_hash,
            "held_out": item.held_out,
            "messages": item.draft.messages,
            "tools": item.draft.tools,
            "reward": item.draft.reward,
            "reward_source": item.draft.reward_source,
            "success": item.draft.success,
            "adapter_version": item.draft.adapter_version,
            "details": item.draft.metadata,
            "sampled": item.draft.sampled,
            "tokens": item.tokens,
            "created_at": now,
        }
        for item in new
    ]
    # One parameter whatever the number of rows: binding each value by itself would take most of an import's time.
    columns = Trajectory.__table__.c
    sent = func.json_to_recordset(literal(rows, JSON)).table_valued(
        *(column(name, columns[name].type) for name in rows[0]), name="sent"
    )
    inserted = (
        insert(Trajectory)
        .from_select(list(rows[0]), select(*sent.render_derived(with_types=True).c))
        .on_conflict_do_nothing(index_elements=["task_id", "content_hash"])
        .returning(Trajectory.id)
    )
    created = set(session.scalars(inserted))
    record_uploaded(session, created)
    return created


def lock_trajectories(session: Session, project_id: uuid.UUID) -> None:
    """Take turns with other inserts and deletions of the project's trajectories, until the transaction ends."""
    turn = func.hashtextextended(f"trajectories of {project_id}", 0)
    session.execute(select(func.pg_advisory_xact_lock(turn)))


def find_stored(session: Session, keys: Iterable[Key]) -> dict[Key, uuid.UUID]:
    """Ids of the stored trajectories among the keys."""
    wanted: dict[uuid.UUID, list[str]] = {}
    for task_id, content in keys:
        wanted.setdefault(task_id, []).append(content)
    found: dict[Key, uuid.UUID] = {}
    for task_id, contents in wanted.items():
        sent = func.unnest(literal(contents, ARRAY(Text))).table_valued("content", name="sent").render_derived()
        # The limit makes it one look into the unique index for each key. Without it, a table not yet analyzed, as it is
        # during its first import, is planned as a walk through all rows of the task.
        match = (
            select(Trajectory.id)
            .where(Trajectory.task_id == task_id, Trajectory.content_hash == sent.c.content)
            .limit(1)
            .lateral("match")
        )
        rows = session.execute(select(sent.c.content, match.c.id).select_from(sent.join(match, true())))
        found |= {(task_id, row.content): row.id for row in rows}
    return found


@dataclass(frozen=True)
class TrajectoryFilter:
    """Which trajectories are wanted; None wants any."""

    task: str | None = None
    session_id: str | None = None
    held_out: bool | None = None
    reward_source: str | None = None
    """Source of the reward in effect."""
    rewarded: bool | None = None
    """Whether they have a reward."""
    min_reward: float | None = None
    max_reward: float | None = None
    text: str | None = None
    """Words of the conversation, as `registry.trajectories.words` finds them."""
    adapter_version: str | None = None
    """The version that answered, as `bot@7`."""


def list_trajectories(
    session: Session,
    project_id: uuid.UUID,
    wanted: TrajectoryFilter,
    *,
    newest: bool = False,
    after: int = 0,
    limit: int = 50,
    with_messages: bool = True,
) -> list[Trajectory]:
    """The next `limit` trajectories in order of arrival, or the newest first.

    Args:
        after: `seq` of the last one already seen; 0 begins with the first.
    """
    query, seq = _wanted(session, project_id, wanted, with_messages=with_messages)
    # A plan for any value would walk along a million rows to the few of a rare task.
    session.execute(text("set local plan_cache_mode = force_custom_plan"))
    if after:
        query = query.where(seq < after if newest else seq > after)
    in_order = query.order_by(seq.desc() if newest else seq).limit(limit)
    if wanted.text is None:
        return list(session.scalars(in_order))
    # PostgreSQL takes a rare word for one that some have, and would walk along all rows to it. So it walks along the
    # nearest, and where those have too few finds them all by the index of words: the order is no column's then.
    for name in ("enable_mergejoin", "enable_hashjoin"):
        session.execute(text(f"set local {name} = off"))
    found = list(session.scalars(in_order.where(_is_near(project_id, newest=newest, after=after))))
    if len(found) < limit:
        found = list(session.scalars(query.order_by((seq + 0).desc() if newest else seq + 0).limit(limit)))
    return found


def _is_near(project_id: uuid.UUID, *, newest: bool, after: int) -> ColumnElement[bool]:
    """Whether words are among the next in order, however many have what is searched."""
    seq, ahead = TrajectoryWords.seq, select(TrajectoryWords.seq).where(TrajectoryWords.project_id == project_id)
    if after:
        ahead = ahead.where(seq < after if newest else seq > after)
    last = ahead.order_by(seq.desc() if newest else seq).offset(_NEAR).limit(1).scalar_subquery()
    return seq > func.coalesce(last, 0) if newest else seq < func.coalesce(last, _LARGEST_SEQ)


def _wanted(
    session: Session, project_id: uuid.UUID, wanted: TrajectoryFilter, *, with_messages: bool
) -> tuple[Select[Trajectory], InstrumentedAttribute[int]]:
    """The query, and the `seq` to order it by: that of the words where they are searched, so that the planner may walk
    along them whether many trajectories have them or few."""
    query, seq = select(Trajectory).where(Trajectory.project_id == project_id), Trajectory.seq
    if wanted.text is not None:
        query = query.join(TrajectoryWords, TrajectoryWords.seq == Trajectory.seq)
        query = query.where(TrajectoryWords.project_id == project_id, matches(wanted.text))
        seq = TrajectoryWords.seq
    if wanted.task is not None:
        task = find_tasks(session, project_id, [wanted.task]).get(wanted.task)
        query = query.where(Trajectory.task_id == task.id if task else false())
    if wanted.session_id is not None:
        query = query.where(Trajectory.session_id == wanted.session_id)
    if wanted.adapter_version is not None:
        query = query.where(Trajectory.adapter_version == wanted.adapter_version)
    if wanted.held_out is not None:
        query = query.where(Trajectory.held_out.is_(wanted.held_out))
    if wanted.reward_source is not None:
        query = query.where(Trajectory.reward_source == wanted.reward_source)
    if wanted.rewarded is not None:
        query = query.where(Trajectory.reward.is_not(None) if wanted.rewarded else Trajectory.reward.is_(None))
    if wanted.min_reward is not None:
        query = query.where(Trajectory.reward >= wanted.min_reward)
    if wanted.max_reward is not None:
        query = query.where(Trajectory.reward <= wanted.max_reward)
    if not with_messages:
        query = query.options(
            defer(Trajectory.messages, raiseload=True),
            defer(Trajectory.tools, raiseload=True),
            defer(Trajectory.sampled, raiseload=True),
        )
    return query.options(joinedload(Trajectory.task)), seq


def get_trajectory(session: Session, project_id: uuid.UUID, trajectory_id: uuid.UUID) -> Trajectory:
    """Raises TrajectoryNotFound if the project has no such trajectory."""
    row = session.scalars(
        select(Trajectory)
        .where(Trajectory.id == trajectory_id, Trajectory.project_id == project_id)
        .options(joinedload(Trajectory.task))
    ).one_or_none()
    if row is None:
        raise TrajectoryNotFound(f"this project has no trajectory {trajectory_id}; GET /v1/trajectories lists them")
    return row
