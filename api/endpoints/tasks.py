"""Tasks: named domains with a grader and held-out items."""

import uuid
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from api.http.deps import Reader, ServicesDep, Writer
from api.http.pagination import Page
from memgen.errors import UnknownGrader
from memgen.tasks.graders import LIKELIHOOD, grader_kinds, make_grader
from registry.database import transaction
from registry.models import Task
from registry.names import NAME_PATTERN
from registry.tasks import MAX_SHARED_TURNS, TaskCounts, count_trajectories, create_task, get_task, list_tasks

router = APIRouter(prefix="/v1", tags=["tasks"])


class GraderSpec(BaseModel):
    """How answers to the task's held-out items are scored; other fields are the grader's options."""

    model_config = ConfigDict(strict=True, extra="allow")

    kind: str = Field(
        description=f"One of {', '.join(grader_kinds())}. `{LIKELIHOOD}` needs no reference answer: it scores "
        "by held-out token loss."
    )


class TaskIn(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    name: str = Field(description=f"Matches `{NAME_PATTERN}`", examples=["support-tickets"])
    description: str = Field(default="", max_length=10_000)
    grader: GraderSpec = Field(default_factory=lambda: GraderSpec(kind=LIKELIHOOD))
    holdout_share: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of conversations kept for evaluation; the service's default where null. Those that begin "
        "alike, up to the first answer, are kept together or trained on together.",
    )
    shared_turns: int = Field(
        default=0,
        ge=0,
        le=MAX_SHARED_TURNS,
        description="Assistant turns that every conversation of the task opens with, such as examples in the prompt; "
        "the side of a conversation is decided by what follows these turns",
    )


class TaskOut(BaseModel):
    id: uuid.UUID
    name: str
    description: str
    grader: dict[str, Any]
    holdout_share: float
    shared_turns: int
    trajectories: int = Field(description="All of the task's trajectories")
    held_out: int = Field(description="Those kept for evaluation, never trained on")
    created_at: datetime


@router.post("/tasks", status_code=201, responses={200: {"model": TaskOut, "description": "It was there already"}})
def post_task(body: TaskIn, services: ServicesDep, principal: Writer, response: Response) -> TaskOut:
    """Create a task. Creating an equal one again answers 200; one that differs is refused with 409."""
    grader = body.grader.model_dump()
    check_grader(grader)
    with transaction(services.sessions) as session:
        task, is_new = create_task(
            session,
            principal.project_id,
            body.name,
            grader=grader,
            holdout_share=body.holdout_share or services.settings.holdout_share,
            shared_turns=body.shared_turns,
            description=body.description,
        )
        if not is_new:
            response.status_code = 200
        return _render(task, count_trajectories(session, [task.id])[task.id])


@router.get("/tasks")
def get_tasks(services: ServicesDep, principal: Reader) -> Page[TaskOut]:
    """All tasks of the project, by name, on one page."""
    with transaction(services.sessions) as session:
        tasks = list_tasks(session, principal.project_id)
        counts = count_trajectories(session, [task.id for task in tasks])
        return Page(data=[_render(task, counts[task.id]) for task in tasks], next_cursor=None)


@router.get("/tasks/{name}")
def get_one_task(name: str, services: ServicesDep, principal: Reader) -> TaskOut:
    with transaction(services.sessions) as session:
        task = get_task(session, principal.project_id, name)
        return _render(task, count_trajectories(session, [task.id])[task.id])


def check_grader(spec: dict[str, Any]) -> None:
    """Raises UnknownGrader: no such kind, or an option that the kind does not take."""
    if spec["kind"] != LIKELIHOOD:
        make_grader(spec)
    elif len(spec) > 1:
        raise UnknownGrader(f"grader {LIKELIHOOD!r} takes no options; got {sorted(set(spec) - {'kind'})}")


def _render(task: Task, counts: TaskCounts) -> TaskOut:
    return TaskOut(
        id=task.id,
        name=task.name,
        description=task.description,
        grader=task.grader,
        holdout_share=task.holdout_share,
        shared_turns=task.shared_turns,
        trajectories=counts.trajectories,
        held_out=counts.held_out,
        created_at=task.created_at,
    )
