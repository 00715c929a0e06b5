"""Judgements: what a judge said of trajectories, and the rewards that follow.

A score becomes a reward of the source `judge:<name>`; whether it is ever used beside or in place of others is the
rewards' rule. What has no score has no reward. A judgement may quote what it is about, so its words go with it.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, contains_eager, joinedload

from registry.clock import utc_now
from registry.database import one_of
from registry.judging.calls import Spent, use_answers
from registry.judging.judges import reward_source
from registry.models import Judge, JudgeCall, Judgement, Task, Trajectory
from registry.rewards.rewards import JUDGE_PREFIX, NewReward, give_reward, lock_to_reward

_COMPARED = 500
"""Newest judgements that are compared with other rewards."""
ERASED = "erased: a trajectory that was ranked beside it was deleted"


@dataclass(frozen=True)
class CaseFinding:
    """What came of judging one case: its trajectories, with a score each or a reason why there is none."""

    trajectory_ids: tuple[uuid.UUID, ...]
    state: str
    reason: str
    model: str
    prompt_hashes: tuple[str, ...]
    scores: tuple[float, ...] = ()
    """One for each trajectory; empty where the state is not `scored`."""
    verdicts: tuple[dict[str, Any], ...] = ()
    """One for each trajectory."""
    spent: Spent = field(default_factory=Spent)


@dataclass(frozen=True)
class Agreement:
    """How a judge orders trajectories that have a reward from elsewhere."""

    compared: int
    pairs: int
    """Pairs of them whose other rewards differ."""
    concordance: float | None
    """Share of the pairs that the judge orders as the rewards do, its ties counting half; 0.5 is chance."""


def record_finding(session: Session, judge: Judge, job_id: uuid.UUID, finding: CaseFinding) -> list[Judgement]:
    """Record the judgements of a case, and their rewards. A score that is there already stays.

    Trajectories that were deleted meanwhile are left out; so is a whole group of which none but one is left.
    """
    lock_to_reward(session, judge.project_id, finding.trajectory_ids)
    present = session.scalars(
        select(Trajectory).where(
            one_of(Trajectory.id, finding.trajectory_ids), Trajectory.project_id == judge.project_id
        )
    )
    rows = {row.id: row for row in present}
    use_answers(session, judge.id, finding.prompt_hashes)
    if len(rows) < len(finding.trajectory_ids):
        return []
    group_id = uuid.uuid4() if len(finding.trajectory_ids) > 1 else None
    made = []
    for place, trajectory_id in enumerate(finding.trajectory_ids):
        score = finding.scores[place] if finding.scores else None
        share = _share(finding.spent, len(finding.trajectory_ids), place)
        values = {
            "job_id": job_id,
            "group_id": group_id,
            "state": finding.state,
            "score": score,
            "reason": finding.reason,
            "verdict": finding.verdicts[place] if finding.verdicts else {},
            "model": finding.model,
            "prompt_hash": finding.prompt_hashes[0] if finding.prompt_hashes else "",
            "calls": finding.spent.calls,
            "prompt_tokens": share.prompt_tokens,
            "answer_tokens": share.answer_tokens,
            "at": utc_now(),
        }
        statement = insert(Judgement).values(id=uuid.uuid4(), judge_id=judge.id, trajectory_id=trajectory_id, **values)
        row = session.scalars(
            statement.on_conflict_do_update(
                index_elements=["judge_id", "trajectory_id"], set_=values, where=Judgement.score.is_(None)
            ).returning(Judgement),
            execution_options={"populate_existing": True},
        ).one_or_none()
        if row is None:
            continue
        made.append(row)
        if score is not None:
            # What is said of a group may quote any of it, so it stays where a deletion finds it.
            comment = finding.reason if group_id is None else ""
            source = reward_source(judge)
            give_reward(session, rows[trajectory_id], NewReward(source, score, actor=source, comment=comment))
    return made


def list_judgements(
    session: Session,
    project_id: uuid.UUID,
    *,
    judge: str | None = None,
    task: str | None = None,
    trajectory_id: uuid.UUID | None = None,
    state: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[Judgement]:
    """Newest first; `before` is the `seq` of the last one already seen."""
    query = (
        select(Judgement)
        .join(Judgement.judge)
        .where(Judge.project_id == project_id)
        .options(
            contains_eager(Judgement.judge),
            joinedload(Judgement.trajectory).load_only(Trajectory.task_id, Trajectory.reward, Trajectory.reward_source),
            joinedload(Judgement.trajectory).joinedload(Trajectory.task),
        )
    )
    if judge is not None:
        query = query.where(Judge.name == judge)
    if task is not None:
        query = query.where(Judgement.trajectory.has(Trajectory.task.has(Task.name == task)))
    if trajectory_id is not None:
        query = query.where(Judgement.trajectory_id == trajectory_id)
    if state is not None:
        query = query.where(Judgement.state == state)
    if before is not None:
        query = query.where(Judgement.seq < before)
    return list(session.scalars(query.order_by(Judgement.seq.desc()).limit(limit)))


def counts_of(session: Session, judge_id: uuid.UUID) -> tuple[dict[str, int], float | None]:
    """How many judgements are in each state, and the mean score."""
    query = select(Judgement.state, func.count(), func.avg(Judgement.score)).where(Judgement.judge_id == judge_id)
    rows = session.execute(query.group_by(Judgement.state)).all()
    mean = next((float(score) for _, _, score in rows if score is not None), None)
    return {state: count for state, count, _ in rows}, mean


def agreement_of(session: Session, judge: Judge) -> Agreement:
    """Compare a judge with rewards from elsewhere. In a ranked group only its own runs are compared."""
    rows = session.execute(
        select(Judgement.score, Trajectory.reward, Judgement.group_id)
        .join(Judgement.trajectory)
        .where(
            Judgement.judge_id == judge.id,
            Judgement.score.is_not(None),
            Trajectory.reward.is_not(None),
            ~func.coalesce(Trajectory.reward_source, "").startswith(JUDGE_PREFIX),
        )
        .order_by(Judgement.seq.desc())
        .limit(_COMPARED)
    ).all()
    return concordance([(row[0] or 0.0, row[1] or 0.0, row[2]) for row in rows])


def concordance(rows: Sequence[tuple[float, float, object]]) -> Agreement:
    """Rows of (score, reward, group); only rows of one group are compared with each other, None being one.

    For `[(0.9, 1, None), (0.4, 0, None), (0.4, 1, None)]` two pairs have rewards that differ: one is ordered alike and
    one is a tie of the judge, so the concordance is 0.75.
    """
    pairs, alike = 0, 0.0
    for (score, reward, group), (other_score, other_reward, other_group) in combinations(rows, 2):
        if reward == other_reward or group != other_group:
            continue
        pairs += 1
        if score == other_score:
            alike += 0.5
        elif (score > other_score) == (reward > other_reward):
            alike += 1.0
    return Agreement(len(rows), pairs, alike / pairs if pairs else None)


def forget(session: Session, trajectory_ids: Collection[uuid.UUID]) -> None:
    """Take the words that were said of trajectories out of what stays when they are deleted: scores stay."""
    if not trajectory_ids:
        return
    groups = select(Judgement.group_id).where(
        one_of(Judgement.trajectory_id, trajectory_ids), Judgement.group_id.is_not(None)
    )
    session.execute(update(Judgement).where(Judgement.group_id.in_(groups)).values(reason=ERASED))
    session.execute(
        update(JudgeCall)
        .where(JudgeCall.answer.is_not(None), JudgeCall.trajectory_ids.overlap(list(trajectory_ids)))
        .values(answer=None, state="unparsable")
    )


def _share(spent: Spent, parts: int, place: int) -> Spent:
    def part(tokens: int) -> int:
        return tokens // parts + (place < tokens % parts)

    return Spent(spent.calls, part(spent.prompt_tokens), part(spent.answer_tokens))
