"""Datasets for training from reward, of three kinds beside the demonstrations of `registry.datasets.snapshots`:

- questions that are answered anew and graded,
- recorded answers with their rewards,
- no trajectories at all, but the name of an environment that makes the items.

Each is immutable and content-hashed, and holds no held-out trajectory. Lines carry the trajectories' metadata, which
graders read. Each manifest says what is trained: `weaver` or `trigger`.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from registry.datasets import snapshots
from registry.datasets.manifest import JudgingTask, Manifest, TrainedPart
from registry.datasets.snapshots import Snapshot, make_snapshot
from registry.errors import EmptyDataset
from registry.job_requests import PlayedEnvironment
from registry.json_text import canonical_json
from registry.models import JsonObject, Task, Trajectory
from registry.trajectories.holdout import first_answer


def question_snapshot(
    session: Session,
    project_id: uuid.UUID,
    task: Task,
    *,
    earlier_tasks: Sequence[Task],
    replay_share: float,
    min_reward: float,
    seed: int,
) -> Snapshot:
    """The trajectories that training on demonstrations would take. Their last answers are references, not targets.

    Raises:
        EmptyDataset: the task has none.
    """
    chosen = snapshots.snapshot(
        session,
        project_id,
        task,
        earlier_tasks=earlier_tasks,
        replay_share=replay_share,
        min_reward=min_reward,
        seed=seed,
    )
    manifest = chosen.manifest.changed(trains=TrainedPart.WEAVER, graders=_graders([task, *earlier_tasks]))
    return _with_lines(session, project_id, task, chosen.items, manifest)


def trigger_snapshot(
    session: Session, project_id: uuid.UUID, memory_task: Task, tasks: Sequence[Task], *, min_reward: float, seed: int
) -> Snapshot:
    """Questions of several tasks for a trigger.

    They are marked as replayed, so that schedules still count them as new: no weaver learns from them.

    Args:
        memory_task: the task of the memory whose trigger it is.

    Raises:
        EmptyDataset: a task has none.
    """
    items: list[tuple[uuid.UUID, bool]] = []
    counts: dict[str, int] = {}
    for task in tasks:
        found = snapshots.snapshot(
            session, project_id, task, earlier_tasks=(), replay_share=0.0, min_reward=min_reward, seed=seed
        )
        items += [(trajectory_id, True) for trajectory_id, _ in found.items]
        counts[task.name] = len(found.items)
    manifest = Manifest(
        task=memory_task.name,
        trains=TrainedPart.TRIGGER,
        new=0,
        replayed=counts,
        replay_share=0.0,
        min_reward=min_reward,
        seed=seed,
        graders=_graders(tasks),
    )
    return _with_lines(session, project_id, memory_task, items, manifest)


def recorded_snapshot(
    session: Session,
    project_id: uuid.UUID,
    task: Task,
    *,
    earlier_tasks: Sequence[Task],
    replay_share: float,
    seed: int,
) -> Snapshot:
    """All trajectories with a reward, failures included, because training learns from the difference.

    Replay takes whole groups, in the order of keyed hashes of their prompts, until its share is reached.

    Raises:
        EmptyDataset: no prompt of the task has answers with different rewards.
    """
    new = list(session.scalars(_rewarded(task)))
    if not comparable_groups(new):
        raise no_comparison(task)
    part = round(len(new) * replay_share / (1.0 - replay_share) / len(earlier_tasks)) if earlier_tasks else 0
    items = [(row.id, False) for row in new]
    replayed: dict[str, int] = {}
    for earlier in earlier_tasks:
        rows = _replayed(comparable_groups(session.scalars(_rewarded(earlier))), part, f"{seed}\n{earlier.name}\n")
        items += [(row.id, True) for row in rows]
        replayed |= {earlier.name: len(rows)} if rows else {}
    shared = {each.name: each.shared_turns for each in (task, *earlier_tasks) if each.shared_turns}
    manifest = Manifest(
        task=task.name,
        new=len(new),
        replayed=replayed,
        replay_share=replay_share,
        seed=seed,
        shared_turns=shared,
    ).changed(trains=TrainedPart.WEAVER)
    return _with_lines(session, project_id, task, items, manifest)


def environment_snapshot(
    project_id: uuid.UUID,
    task: Task,
    environment: PlayedEnvironment,
    *,
    judged_by: Sequence[Task],
    trains: TrainedPart,
    seed: int,
) -> Snapshot:
    """A dataset without trajectories: the environment's items follow from its name, options, number and seed.

    Args:
        judged_by: tasks whose held-out items the gate uses. Conversations made from the environment may be among them,
            so the manifest says how their sides are chosen (`registry.trajectories.holdout`).
    """
    judges = tuple(JudgingTask(judge.name, judge.holdout_share, judge.shared_turns) for judge in judged_by)
    manifest = Manifest(
        task=task.name,
        environment=environment,
        new=0,
        replayed={},
        replay_share=0.0,
        seed=seed,
    ).changed(trains=trains, held_out=judges)
    return make_snapshot(project_id, task, (), manifest, (), ())


def has_comparison(session: Session, task: Task) -> bool:
    """Whether some prompt of the task has recorded answers with different rewards, outside the held-out share."""
    rewards: dict[bytes, float] = {}
    with session.execute(_rewarded(task).execution_options(yield_per=500)) as found:
        return any(rewards.setdefault(_prompt_key(row), row.reward or 0.0) != row.reward for row in found.scalars())


def no_comparison(task: Task) -> EmptyDataset:
    return EmptyDataset(
        f"task {task.name!r} has no prompt with several recorded answers of different rewards outside its held-out "
        "share, so there is nothing to compare; upload more answers to the same prompts with their rewards, failures "
        "included"
    )


def comparable_groups(rows: Iterable[Trajectory]) -> dict[bytes, list[Trajectory]]:
    """The trajectories of prompts whose rewards differ, by prompt.

    A prompt is what stands in front of the first answer after the task's shared turns, with the tools. With rewards
    1, 0 for one prompt and 1, 1 for another, the two trajectories of the first prompt are returned.
    """
    groups: dict[bytes, list[Trajectory]] = {}
    for row in rows:
        groups.setdefault(_prompt_key(row), []).append(row)
    return {key: found for key, found in groups.items() if len({row.reward for row in found}) > 1}


def _rewarded(task: Task) -> Select[Trajectory]:
    return (
        select(Trajectory)
        .where(Trajectory.task_id == task.id, Trajectory.held_out.is_(False), Trajectory.reward.is_not(None))
        .order_by(Trajectory.content_hash)
    )


def _prompt_key(row: Trajectory) -> bytes:
    # Without an answer, the prompt is all messages.
    prompt = row.messages[: first_answer(row.messages, row.task.shared_turns)]
    return canonical_json([prompt, row.tools or None])


def _replayed(groups: dict[bytes, list[Trajectory]], part: int, key: str) -> list[Trajectory]:
    """Whole groups, until they have at least `part` rows or no group is left; no rows for 0."""
    chosen: list[Trajectory] = []
    for prompt in sorted(groups, key=lambda prompt: hashlib.sha256(key.encode() + prompt).digest()):
        if len(chosen) >= part:
            break
        chosen += groups[prompt]
    return chosen


def _graders(tasks: Sequence[Task]) -> JsonObject:
    return {task.name: task.grader for task in tasks}


def _with_lines(
    session: Session,
    project_id: uuid.UUID,
    task: Task,
    items: Sequence[tuple[uuid.UUID, bool]],
    manifest: Manifest,
) -> Snapshot:
    ids = {trajectory_id for trajectory_id, _ in items}
    rows = {row.id: row for row in session.scalars(select(Trajectory).where(Trajectory.id.in_(ids)))}
    lines = [_line(rows[trajectory_id], replayed=replayed) for trajectory_id, replayed in items]
    rewards = [rows[trajectory_id].reward for trajectory_id, _ in items]
    return make_snapshot(project_id, task, items, manifest, lines, rewards)


def _line(row: Trajectory, *, replayed: bool) -> str:
    line: dict[str, Any] = {
        "id": str(row.id),
        "task": row.task.name,
        "replayed": replayed,
        "messages": row.messages,
        "tools": row.tools,
        "reward": row.reward,
        "success": row.success,
        "trajectory_id": row.trajectory_id or str(row.id),
        "metadata": row.details,
    }
    if row.sampled is not None:
        line["sampled"] = row.sampled
    return json.dumps(line, ensure_ascii=False)
