"""Tasks: named domains with a grader and a share of held-out prompts. The grader's spec is opaque here."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.errors import Invalid, InvalidJson, NameTaken, TaskNotFound
from registry.json_text import canonical_json, show
from registry.models import JsonObject, Task, Trajectory
from registry.names import check_name, is_valid_name

MAX_SHARED_TURNS = 1000


@dataclass(frozen=True, slots=True)
class TaskCounts:
    trajectories: int = 0
    held_out: int = 0


def create_task(
    session: Session,
    project_id: uuid.UUID,
    name: str,
    *,
    grader: JsonObject,
    holdout_share: float,
    shared_turns: int = 0,
    description: str = "",
) -> tuple[Task, bool]:
    """The task, and whether it is new: creating an equal one again is harmless.

    Raises:
        InvalidName, Invalid: the name does not match `NAME_PATTERN`; a text can't be stored.
        NameTaken: a task of that name has another grader, share, number of shared turns or description.
    """
    check_name("task", name)
    try:
        canonical_json({"grader": grader, "description": description})
    except InvalidJson as error:
        raise Invalid(str(error)) from error
    if not 0 < holdout_share < 1:
        raise Invalid(f"holdout_share {holdout_share}; expected a share between 0 and 1, both excluded")
    if not 0 <= shared_turns <= MAX_SHARED_TURNS:
        raise Invalid(f"shared_turns {shared_turns}; expected 0 to {MAX_SHARED_TURNS}")
    spec = {
        "grader": grader,
        "holdout_share": holdout_share,
        "shared_turns": shared_turns,
        "description": description,
    }
    created = session.scalars(
        insert(Task)
        .values(id=uuid.uuid4(), project_id=project_id, name=name, created_at=utc_now(), **spec)
        .on_conflict_do_nothing(index_elements=["project_id", "name"])
        .returning(Task)
    ).one_or_none()
    if created is not None:
        return created, True
    found = get_task(session, project_id, name)
    different = [field for field, value in spec.items() if getattr(found, field) != value]
    if different:
        raise NameTaken(
            f"the project already has a task {name!r} with another {', '.join(different)}; use another name, "
            "or leave the task as it is: its held-out items were chosen with it"
        )
    return found, False


def get_task(session: Session, project_id: uuid.UUID, name: str) -> Task:
    """Raises TaskNotFound if the project has no task of that name."""
    # A name that no task can have is not worth a query, nor safe in one (NUL).
    row = find_tasks(session, project_id, [name]).get(name) if is_valid_name(name) else None
    if row is None:
        raise TaskNotFound(f"this project has no task {show(name)}; create it with POST /v1/tasks")
    return row


def find_tasks(session: Session, project_id: uuid.UUID, names: Iterable[str]) -> dict[str, Task]:
    """The tasks of the project with these names; other names are left out."""
    possible = {name for name in names if is_valid_name(name)}
    if not possible:
        return {}
    rows = session.scalars(select(Task).where(Task.project_id == project_id, Task.name.in_(possible)))
    return {task.name: task for task in rows}


def list_tasks(session: Session, project_id: uuid.UUID) -> list[Task]:
    """All tasks of a project, by name."""
    return list(session.scalars(select(Task).where(Task.project_id == project_id).order_by(Task.name)))


def count_trajectories(session: Session, task_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, TaskCounts]:
    """Counts by task id; a task without trajectories has zeros."""
    ids = set(task_ids)
    rows = session.execute(
        select(Trajectory.task_id, func.count(), func.count().filter(Trajectory.held_out))
        .where(Trajectory.task_id.in_(ids))
        .group_by(Trajectory.task_id)
    )
    found = {task_id: TaskCounts(all_of_it, held_out) for task_id, all_of_it, held_out in rows}
    return {task_id: found.get(task_id, TaskCounts()) for task_id in ids}
