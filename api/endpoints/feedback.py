"""Feedback on answers, by completion id."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from api.http.deps import ServicesDep, Writer
from api.http.schemas import Strict
from registry.database import transaction
from registry.serving.feedback import USER, Received, receive_feedback

router = APIRouter(prefix="/v1/feedback", tags=["routes"])


class FeedbackIn(Strict):
    completion_id: Annotated[str, Field(description="`id` of the chat completion", max_length=200)]
    reward: Annotated[float, Field(ge=0, le=1, description="0 is bad, 1 is good")]
    source: Annotated[str, Field(description="Who says so: user, grader, environment, ...")] = USER
    comment: Annotated[str, Field(max_length=2000)] = ""


class FeedbackOut(BaseModel):
    completion_id: str
    reward: float
    source: str
    comment: str
    model: str
    """The exact version that gave the answer, as `support-bot@7`; `base`, or an upstream's model, as `strong/gpt-5`."""
    session_id: str | None
    route: int | None
    """The route that had chosen the version."""
    counted: bool
    """Whether the route's comparison counts it; only the first feedback of a session does."""
    stopped: bool
    """Whether it stopped a canary, which is worse than the champion."""
    promoted: bool
    """Whether it made a canary the champion."""
    at: datetime

    @classmethod
    def of(cls, received: Received) -> "FeedbackOut":
        row, version, route = received.feedback, received.exposure.version, received.route
        return cls(
            completion_id=received.exposure.completion_id,
            reward=row.reward,
            source=row.source,
            comment=row.comment,
            model=f"{version.adapter.name}@{version.number}" if version else received.exposure.upstream or "base",
            session_id=received.exposure.session_id,
            route=route.number if route else None,
            counted=row.counted,
            stopped=received.outcome == "stopped",
            promoted=received.outcome == "promoted",
            at=row.at,
        )


@router.post("", status_code=201, responses={200: {"model": FeedbackOut, "description": "It was reported already"}})
def create(body: FeedbackIn, services: ServicesDep, caller: Writer, response: Response) -> FeedbackOut:
    """Report what an answer was worth, at any time after it. The first reward of a source stands: the same again
    answers 200, another one 409. Feedback that decides a canary stops it, or promotes it."""
    with transaction(services.sessions) as session:
        received = receive_feedback(
            session,
            caller.project_id,
            body.completion_id,
            body.reward,
            actor=caller.actor,
            source=body.source,
            comment=body.comment,
        )
        if not received.is_new:
            response.status_code = 200
        return FeedbackOut.of(received)
