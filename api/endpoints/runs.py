"""Runs: what was recorded of agents' work, and what became of it."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from api.http.deps import Reader, ServicesDep
from api.http.pagination import Cursor, Page, PageLimit, decode_cursor, make_page
from registry.database import transaction
from registry.models import Run, RunCall
from registry.names import MAX_SESSION_CHARACTERS
from registry.recordings.runs import calls_of, get_run, list_runs, messages_of
from registry.tasks import get_task

router = APIRouter(prefix="/v1/runs", tags=["recording"])

_Text = Annotated[str | None, Query(max_length=MAX_SESSION_CHARACTERS, pattern=r"^[^\x00]*$")]


class RunSummary(BaseModel):
    id: uuid.UUID
    task: str
    session_id: str | None
    state: Literal["open", "closing", "closed"]
    close_reason: str | None = Field(description="idle, header, reward or limit")
    opened_at: datetime
    last_at: datetime = Field(description="When its last answer was given")
    closed_at: datetime | None
    calls: int = Field(description="Answers that were recorded in it")
    turns: int = Field(description="Assistant turns, those that a request brought along among them")
    branch_of: uuid.UUID | None = Field(description="Run whose earlier point it went on from")
    trajectory_id: uuid.UUID | None = Field(description="Id of the trajectory that it became")
    refusal_code: str | None = Field(description="Why it became none, for programs; stable, as an import's")
    refusal_reason: str | None

    @classmethod
    def of(cls, row: Run) -> "RunSummary":
        return cls(**_summary(row))


class RunCallOut(BaseModel):
    completion_id: str
    choice: int
    turn: int = Field(description="Which assistant turn of the run it is, from 0")
    at: datetime

    @classmethod
    def of(cls, row: RunCall) -> "RunCallOut":
        return cls(completion_id=row.completion_id, choice=row.choice, turn=row.place, at=row.at)


class RunOut(RunSummary):
    recorded: list[RunCallOut]
    messages: list[Any] = Field(description="With the weight of each assistant turn in training")
    tools: list[Any] | None


@router.get("")
def get_runs(
    services: ServicesDep,
    caller: Reader,
    task: _Text = None,
    session_id: _Text = None,
    completion_id: _Text = None,
    state: Annotated[Literal["open", "closing", "closed", "refused"] | None, Query()] = None,
    cursor: Cursor = None,
    limit: PageLimit = 50,
) -> Page[RunSummary]:
    """Runs, newest first."""
    with transaction(services.sessions) as session:
        if task is not None:
            get_task(session, caller.project_id, task)
        rows = list_runs(
            session,
            caller.project_id,
            task=task,
            session_id=session_id,
            state=state,
            completion_id=completion_id,
            before=decode_cursor(cursor) or None,
            limit=limit + 1,
        )
        return make_page(rows, limit, seq=lambda row: row.seq, render=RunSummary.of)


@router.get("/{run}")
def get_one_run(run: uuid.UUID, services: ServicesDep, caller: Reader) -> RunOut:
    """One run with its messages, by its id or by the one that `memgen.recorded` of an answer named."""
    with transaction(services.sessions) as session:
        row = get_run(session, caller.project_id, run)
        recorded = [RunCallOut.of(call) for call in calls_of(session, row)]
        return RunOut(**_summary(row), recorded=recorded, messages=messages_of(session, row), tools=row.tools)


def _summary(row: Run) -> dict[str, Any]:
    same = {name: getattr(row, name) for name in RunSummary.model_fields if name != "task"}
    return {**same, "task": row.task.name}
