"""Feedback on answers, runs, sessions and trajectories: reported, listed, searched by its comments."""

import uuid
from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field, model_validator
from sqlalchemy.orm import Session

from api.http.deps import Reader, ServicesDep, Writer
from api.http.pagination import Cursor, Page, PageLimit, decode_cursor, make_page
from api.http.schemas import Strict
from api.recording.recorder import Recorder
from registry.database import transaction
from registry.keys import Principal
from registry.models import Exposure, Feedback
from registry.names import MAX_SESSION_CHARACTERS
from registry.serving.feedback import USER, Rating, Received, receive_feedback
from registry.serving.reported import FeedbackFilter, Reported, list_feedback
from registry.serving.run_feedback import (
    receive_run_feedback,
    receive_session_feedback,
    receive_trajectory_feedback,
)

router = APIRouter(prefix="/v1/feedback", tags=["feedback"])

TARGETS = ("completion_id", "run_id", "session_id", "trajectory_id")


class FeedbackIn(Strict):
    """What somebody says of exactly one of an answer, a run, a session or a trajectory."""

    completion_id: Annotated[str | None, Field(description="`id` of an answer", max_length=200)] = None
    run_id: Annotated[
        uuid.UUID | None, Field(description="A recorded run, which is closed: it has its reward", strict=False)
    ] = None
    session_id: Annotated[
        str | None,
        Field(
            description="A session, whose open runs are closed: they have their reward",
            max_length=MAX_SESSION_CHARACTERS,
        ),
    ] = None
    trajectory_id: Annotated[
        uuid.UUID | None, Field(description="A stored trajectory, by the id that the service gave it", strict=False)
    ] = None
    reward: Annotated[float, Field(ge=0, le=1, description="0 is bad, 1 is good")]
    source: Annotated[str, Field(description="Who says so: user, grader, environment, ...")] = USER
    comment: Annotated[str, Field(max_length=2000)] = ""

    @model_validator(mode="after")
    def _has_one_target(self) -> Self:
        named = [name for name in TARGETS if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(
                f"got {' and '.join(named) if named else 'none of them'}; expected exactly one of {', '.join(TARGETS)}"
            )
        return self


class FeedbackSummary(BaseModel):
    id: int = Field(description="Place in the order of arrival")
    completion_id: str | None
    run_id: uuid.UUID | None
    session_id: str | None
    """The session that was rewarded, or that of the answer."""
    trajectory_id: uuid.UUID | None
    reward: float
    source: str
    comment: str
    actor: str
    """Who reported it, such as `key NAME`."""
    model: str | None
    """The exact version that gave the answer, or the session's last one, as `support-bot@7`; `base`, or an upstream's.
    Null where nothing is known of it."""
    counted: bool
    """Whether a route's comparison counts it; only the first feedback of a session does."""
    trajectories: list[uuid.UUID]
    """What the reward was given to so far. Empty while the run is not written, or if it was not recorded."""
    at: datetime

    @classmethod
    def of(cls, found: Reported) -> "FeedbackSummary":
        return cls(**_summary(found.feedback, found.exposure), trajectories=list(found.trajectories))


class FeedbackOut(FeedbackSummary):
    route: int | None
    """The route that had chosen the version."""
    runs: list[uuid.UUID]
    """Runs that it is closing. They are written moments later."""
    stopped: bool
    """Whether it stopped a canary, which is worse than the champion."""
    promoted: bool
    """Whether it made a canary the champion."""

    @classmethod
    def of_received(cls, received: Received) -> "FeedbackOut":
        return cls(
            **_summary(received.feedback, received.exposure),
            trajectories=list(received.trajectories),
            route=received.route.number if received.route else None,
            runs=list(received.runs),
            stopped=received.outcome == "stopped",
            promoted=received.outcome == "promoted",
        )


def _summary(row: Feedback, answer: Exposure | None) -> dict[str, object]:
    return {
        "id": row.seq,
        "completion_id": row.completion_id,
        "run_id": row.run_id,
        "session_id": answer.session_id if answer else row.session_id,
        "trajectory_id": row.trajectory_id,
        "reward": row.reward,
        "source": row.source,
        "comment": row.comment,
        "actor": row.actor,
        "model": _model(row, answer),
        "counted": row.counted,
        "at": row.at,
    }


def _model(row: Feedback, answer: Exposure | None) -> str | None:
    if row.version is not None:
        return f"{row.version.adapter.name}@{row.version.number}"
    if answer is not None:
        return answer.upstream or "base"
    return None


@router.post("", status_code=201, responses={200: {"model": FeedbackOut, "description": "It was reported already"}})
def create(
    body: FeedbackIn, request: Request, services: ServicesDep, caller: Writer, response: Response
) -> FeedbackOut:
    """Report what an answer, a run or a session was worth, at any time after it. The first reward of a source stands:
    the same again answers 200, another one 409. A recorded run has its reward from then on, and the next training
    learns from it; feedback on a run or a session closes it. Feedback that decides a canary stops or promotes it."""
    report = Rating(body.reward, caller.actor, body.source, body.comment)
    if body.run_id is not None or body.session_id is not None:
        # What is to be closed had better be there. What another process still holds gets the reward when it is.
        recorder: Recorder = request.app.state.recorder
        recorder.flush()
    with transaction(services.sessions) as session:
        received = _receive(session, caller, body, report)
        if not received.is_new:
            response.status_code = 200
        return FeedbackOut.of_received(received)


def _receive(session: Session, caller: Principal, body: FeedbackIn, report: Rating) -> Received:
    if body.run_id is not None:
        return receive_run_feedback(session, caller.project_id, body.run_id, report)
    if body.session_id is not None:
        return receive_session_feedback(session, caller.project_id, body.session_id, report)
    if body.trajectory_id is not None:
        return receive_trajectory_feedback(session, caller.project_id, body.trajectory_id, report)
    return receive_feedback(session, caller.project_id, body.completion_id or "", report)


def feedback_filter(
    search: Annotated[
        str | None,
        Query(
            max_length=500,
            description='Words of the comment: all of them; "in a row"; `or` between alternatives; `-` before what '
            "must not be there",
        ),
    ] = None,
    source: Annotated[str | None, Query(max_length=256)] = None,
    completion_id: Annotated[str | None, Query(max_length=200)] = None,
    run_id: uuid.UUID | None = None,
    session_id: Annotated[
        str | None, Query(max_length=MAX_SESSION_CHARACTERS, description="Of the session, and of its answers")
    ] = None,
    trajectory_id: Annotated[uuid.UUID | None, Query(description="What the reward was given to")] = None,
    min_reward: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    max_reward: Annotated[float | None, Query(allow_inf_nan=False)] = None,
) -> FeedbackFilter:
    """The query parameters of the listing."""
    return FeedbackFilter(search, source, completion_id, run_id, session_id, trajectory_id, min_reward, max_reward)


@router.get("")
def get_feedback(
    services: ServicesDep,
    caller: Reader,
    wanted: Annotated[FeedbackFilter, Depends(feedback_filter)],
    cursor: Cursor = None,
    limit: PageLimit = 50,
) -> Page[FeedbackSummary]:
    """Feedback, newest first."""
    with transaction(services.sessions) as session:
        found = list_feedback(
            session,
            caller.project_id,
            wanted,
            before=decode_cursor(cursor) or None,
            limit=limit + 1,
        )
        return make_page(found, limit, seq=lambda each: each.feedback.seq, render=FeedbackSummary.of)
