"""Judges: models with a rubric that score trajectories, and what they said."""

import uuid
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field, create_model
from sqlalchemy.orm import Session

from api.http.deps import Reader, ServicesDep, Trainer
from api.http.pagination import Cursor, Page, PageLimit, decode_cursor, encode_cursor
from api.http.schemas import Strict
from api.http.values import Number
from registry.database import transaction
from registry.judging.judgements import agreement_of, counts_of, list_judgements
from registry.judging.judges import (
    MAX_RUBRIC,
    JudgeSettings,
    change_daily_calls,
    check_upstream,
    create_judge,
    get_judge,
    list_judges,
    reward_source,
    tasks_of_judges,
)
from registry.models import Judge, Judgement
from registry.names import NAME_PATTERN
from registry.tasks import get_task

router = APIRouter(prefix="/v1", tags=["judges"])

_SETTINGS = {each.name: each for each in fields(JudgeSettings)}


class _JudgeBody(Strict):
    name: Annotated[str, Field(description=f"Matches `{NAME_PATTERN}`", examples=["helpful"])]
    kind: Annotated[
        Literal["pointwise", "relative"],
        Field(description="Scores each run by itself, or ranks runs that begin alike"),
    ] = "pointwise"
    model: Annotated[
        str,
        Field(max_length=400, description="`base`, `adapter`, `adapter@alias`, `adapter@7`, or `upstream/model`"),
    ]
    rubric: Annotated[str, Field(max_length=MAX_RUBRIC, description="What a good run is, in words")]


JudgeIn = create_model(
    "JudgeIn",
    __base__=_JudgeBody,
    __doc__="What a judge judges by can't be changed later: its rewards must mean one thing.",
    **{
        name: (each.type, Field(each.default, description=each.metadata["meaning"])) for name, each in _SETTINGS.items()
    },  # type: ignore[call-overload]  # the fields of the settings, with their types
)


class JudgeChange(Strict):
    daily_calls: Annotated[Number, Field(description=_SETTINGS["daily_calls"].metadata["meaning"])]


class AgreementOut(BaseModel):
    """How the judge orders trajectories that have a reward from people, graders or environments."""

    compared: int
    pairs: int = Field(description="Pairs of them whose other rewards differ")
    concordance: float | None = Field(description="Share of the pairs that it orders alike; 0.5 is chance")


class JudgeSummary(BaseModel):
    name: str
    kind: str
    model: str
    rubric: str
    settings: dict[str, Any]
    reward_source: str
    tasks: list[str] = Field(description="Tasks whose new trajectories it judges by itself")
    created_at: datetime

    @classmethod
    def of(cls, row: Judge, tasks: Sequence[str]) -> "JudgeSummary":
        return cls(**_described(row, tasks))


class JudgeOut(JudgeSummary):
    judgements: dict[str, int] = Field(description="How many there are, by state; only `scored` ones have a score")
    mean_score: float | None
    agreement: AgreementOut

    @classmethod
    def measured(cls, session: Session, row: Judge, tasks: Sequence[str]) -> "JudgeOut":
        counts, mean = counts_of(session, row.id)
        agreement = AgreementOut(**asdict(agreement_of(session, row)))
        return cls(**_described(row, tasks), judgements=counts, mean_score=mean, agreement=agreement)


class JudgementOut(BaseModel):
    id: uuid.UUID
    judge: str
    trajectory: uuid.UUID
    task: str
    state: str
    score: float | None
    reason: str
    verdict: dict[str, Any]
    """What the score was made of; `ranks`, `of` and `disagreement` where several were ranked, `left_out_characters`
    where the recording was too long."""
    group: uuid.UUID | None
    model: str
    prompt_hash: str
    calls: int
    prompt_tokens: int
    answer_tokens: int
    job_id: uuid.UUID
    reward: float | None
    """The trajectory's reward as it is now."""
    reward_source: str | None
    at: datetime

    @classmethod
    def of(cls, row: Judgement) -> "JudgementOut":
        return cls(
            id=row.id,
            judge=row.judge.name,
            trajectory=row.trajectory_id,
            task=row.trajectory.task.name,
            state=row.state,
            score=row.score,
            reason=row.reason,
            verdict=row.verdict,
            group=row.group_id,
            model=row.model,
            prompt_hash=row.prompt_hash,
            calls=row.calls,
            prompt_tokens=row.prompt_tokens,
            answer_tokens=row.answer_tokens,
            job_id=row.job_id,
            reward=row.trajectory.reward,
            reward_source=row.trajectory.reward_source,
            at=row.at,
        )


@router.post(
    "/judges", status_code=201, responses={200: {"model": JudgeSummary, "description": "It was there already"}}
)
def post_judge(body: JudgeIn, services: ServicesDep, caller: Trainer, response: Response) -> JudgeSummary:
    """Create a judge. Creating an equal one again answers 200; one that differs is refused with 409."""
    sent: dict[str, Any] = body.model_dump()
    settings = JudgeSettings(**{name: sent.pop(name) for name in _SETTINGS})
    with transaction(services.sessions) as session:
        check_upstream(session, services.settings, caller.project_id, sent["model"])
        judge, is_new = create_judge(session, caller.project_id, **sent, settings=settings)
        if not is_new:
            response.status_code = 200
        return JudgeSummary.of(judge, tasks_of_judges(session, [judge.id])[judge.id])


@router.get("/judges")
def get_judges(services: ServicesDep, caller: Reader) -> Page[JudgeSummary]:
    """All judges of the project, by name, on one page."""
    with transaction(services.sessions) as session:
        rows = list_judges(session, caller.project_id)
        tasks = tasks_of_judges(session, [row.id for row in rows])
        return Page(data=[JudgeSummary.of(row, tasks[row.id]) for row in rows], next_cursor=None)


@router.get("/judges/{name}")
def get_one_judge(name: str, services: ServicesDep, caller: Reader) -> JudgeOut:
    """One judge, with what it has judged and how it agrees with rewards from elsewhere."""
    with transaction(services.sessions) as session:
        judge = get_judge(session, caller.project_id, name)
        return JudgeOut.measured(session, judge, tasks_of_judges(session, [judge.id])[judge.id])


@router.patch("/judges/{name}")
def patch_judge(name: str, body: JudgeChange, services: ServicesDep, caller: Trainer) -> JudgeSummary:
    """Change what it may spend by itself; all else of a judge stays."""
    with transaction(services.sessions) as session:
        judge = get_judge(session, caller.project_id, name, lock=True)
        change_daily_calls(judge, body.daily_calls)
        return JudgeSummary.of(judge, tasks_of_judges(session, [judge.id])[judge.id])


@router.get("/judgements")
def get_judgements(
    services: ServicesDep,
    caller: Reader,
    judge: Annotated[str | None, Query(max_length=256)] = None,
    task: Annotated[str | None, Query(max_length=256)] = None,
    trajectory: uuid.UUID | None = None,
    state: Annotated[
        Literal["scored", "undecided", "unparsable", "refused", "too_long"] | None,
        Query(description="Only `scored` ones have a score"),
    ] = None,
    cursor: Cursor = None,
    limit: PageLimit = 50,
) -> Page[JudgementOut]:
    """What judges said, newest first."""
    with transaction(services.sessions) as session:
        if judge is not None:
            get_judge(session, caller.project_id, judge)
        if task is not None:
            get_task(session, caller.project_id, task)
        rows = list_judgements(
            session,
            caller.project_id,
            judge=judge,
            task=task,
            trajectory_id=trajectory,
            state=state,
            before=decode_cursor(cursor) if cursor else None,
            limit=limit + 1,
        )
        following = encode_cursor(rows[limit - 1].seq) if len(rows) > limit else None
        return Page(data=[JudgementOut.of(row) for row in rows[:limit]], next_cursor=following)


def _described(row: Judge, tasks: Sequence[str]) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "model": row.model,
        "rubric": row.rubric,
        "settings": asdict(JudgeSettings.of(row)),
        "reward_source": reward_source(row),
        "tasks": list(tasks),
        "created_at": row.created_at,
    }
