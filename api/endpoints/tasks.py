"""Tasks: named domains with a grader and held-out items."""

import uuid
from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from api.http.deps import Reader, ServicesDep, Trainer, Writer
from api.http.pagination import Page
from api.http.schemas import Strict
from memgen.errors import UnknownGrader
from memgen.tasks.graders import LIKELIHOOD, grader_kinds, make_grader
from registry.database import transaction
from registry.judging.judges import get_judge, judges_of_tasks, name_judge
from registry.models import Task
from registry.names import NAME_PATTERN
from registry.rewards.rewards import set_judge_rewards
from registry.tasks import MAX_SHARED_TURNS, TaskCounts, count_trajectories, create_task, get_task, list_tasks

router = APIRouter(prefix="/v1", tags=["tasks"])


class GraderSpec(BaseModel):
    """How answers to the task's held-out items are scored; other fields are the grader's options."""

    model_config = ConfigDict(strict=True, extra="allow")

    kind: str = Field(
        description=f"One of {', '.join(grader_kinds())}. `{LIKELIHOOD}` needs no reference answer: it scores "
        "by held-out token loss."
    )


class TaskIn(Strict):
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


class TaskChange(Strict):
    """Fields that are left out stay as they are."""

    judge: str | None = Field(default=None, description="Judge of the task's new trajectories; null for none")
    judge_rewards: Literal["apart", "fill"] | None = Field(
        default=None,
        description="Whether judges' rewards are used where no other source gave one, or never; null changes nothing",
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
    judge: str | None = Field(description="Judges the task's new trajectories by itself")
    judge_rewards: str = Field(description="`fill`: used where there is no other reward; `apart`: never")
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
        return _shown(session, task)


@router.get("/tasks")
def get_tasks(services: ServicesDep, principal: Reader) -> Page[TaskOut]:
    """All tasks of the project, by name, on one page."""
    with transaction(services.sessions) as session:
        tasks = list_tasks(session, principal.project_id)
        counts = count_trajectories(session, [task.id for task in tasks])
        judges = judges_of_tasks(session, [task.id for task in tasks])
        data = [_render(task, counts[task.id], judges.get(task.id)) for task in tasks]
        return Page(data=data, next_cursor=None)


@router.get("/tasks/{name}")
def get_one_task(name: str, services: ServicesDep, principal: Reader) -> TaskOut:
    with transaction(services.sessions) as session:
        return _shown(session, get_task(session, principal.project_id, name))


@router.patch("/tasks/{name}")
def patch_task(name: str, body: TaskChange, services: ServicesDep, principal: Trainer) -> TaskOut:
    """Name the judge of a task, or none. The rest of a task stays: its held-out items were chosen with it."""
    with transaction(services.sessions) as session:
        task = get_task(session, principal.project_id, name)
        if "judge" in body.model_fields_set:
            judge = None if body.judge is None else get_judge(session, principal.project_id, body.judge)
            name_judge(session, task, judge)
        if body.judge_rewards is not None:
            set_judge_rewards(session, task, body.judge_rewards)
        return _shown(session, task)


def check_grader(spec: dict[str, Any]) -> None:
    """Raises UnknownGrader: no such kind, or an option that the kind does not take."""
    if spec["kind"] != LIKELIHOOD:
        make_grader(spec)
    elif len(spec) > 1:
        raise UnknownGrader(f"grader {LIKELIHOOD!r} takes no options; got {sorted(set(spec) - {'kind'})}")


def _shown(session: Session, task: Task) -> TaskOut:
    counts = count_trajectories(session, [task.id])[task.id]
    return _render(task, counts, judges_of_tasks(session, [task.id]).get(task.id))


def _render(task: Task, counts: TaskCounts, judge: str | None) -> TaskOut:
    return TaskOut(
        id=task.id,
        name=task.name,
        description=task.description,
        grader=task.grader,
        holdout_share=task.holdout_share,
        shared_turns=task.shared_turns,
        trajectories=counts.trajectories,
        held_out=counts.held_out,
        judge=judge,
        judge_rewards=task.judge_rewards,
        created_at=task.created_at,
    )
