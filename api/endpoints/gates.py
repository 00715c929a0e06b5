"""Gates: the evidence of a verdict, item by item, and what people decide about a version that waits."""

import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from api.endpoints.jobs import send_job
from api.http.deps import Promoter, Reader, ServicesDep, Trainer
from api.http.pagination import Cursor, Page, PageLimit, decode_cursor, make_page
from api.http.schemas import AliasMoveOut, GateDecisionOut, GateOut, JobOut, Strict
from api.http.values import Number
from registry.adapters import get_adapter
from registry.database import transaction
from registry.gates.audit import ComparedItem, Flip, compared_items, flipped_only, recorded_gate, suite_numbers
from registry.gates.verdict import verdict
from registry.keys import Principal
from registry.promotion import decide, run_gate
from registry.versions.records import get_version
from registry.wiring import Services

router = APIRouter(prefix="/v1/adapters/{name}/versions/{number}/gate", tags=["gates"])


class GateAudit(GateOut):
    adapter: str
    version: int
    verdict: str
    suites: dict[str, int]
    """Number of the suite that both were scored on, by task."""


class PairOut(BaseModel):
    place: int
    """Position of the item in the suite."""
    trajectory_id: uuid.UUID | None
    """Null if it was deleted since."""
    champion: dict[str, Any]
    """`score` and `answer`; with strategy `isolated` also `routed`. `note` says what was wrong with an item or with
    grading it; `left_out` is true where it does not count."""
    candidate: dict[str, Any]
    flipped: Flip | None

    @classmethod
    def of(cls, pair: ComparedItem) -> "PairOut":
        return cls(
            place=pair.place,
            trajectory_id=pair.trajectory_id,
            champion=pair.champion,
            candidate=pair.candidate,
            flipped=pair.flipped,
        )


class ApproveIn(Strict):
    reason: Annotated[str, Field(max_length=2000)] = ""
    expected_version: Annotated[
        Number | None,
        Field(description="The champion as you know it, 0 for none; default: the one that the gate compared with"),
    ] = None


class RejectIn(Strict):
    reason: Annotated[str, Field(max_length=2000)] = ""


class Decided(BaseModel):
    decision: GateDecisionOut
    move: AliasMoveOut | None
    """The move of `champion`; null if the version was rejected."""


@router.get("")
def show(name: str, number: Number, services: ServicesDep, caller: Reader) -> GateAudit:
    """The verdict, its reasons, and the evidence on every task."""
    with transaction(services.sessions) as session:
        version = get_version(session, get_adapter(session, caller.project_id, name), number)
        gate = recorded_gate(session, version)
        return GateAudit(
            **GateOut.of(gate).model_dump(),
            adapter=name,
            version=number,
            verdict=verdict(gate),
            suites=suite_numbers(session, gate),
        )


@router.post("", status_code=202)
def run(name: str, number: Number, request: Request, services: ServicesDep, caller: Trainer) -> JobOut:
    """Queue a job that judges a version whose own job failed before its gate had run. What follows from the verdict is
    what would have followed then. 409 if the gate has run, or a job that is to judge it has not ended."""
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name, lock=True)
        out = JobOut.of(run_gate(session, adapter, get_version(session, adapter, number)))
    return out.model_copy(update={"waits_for_broker": not send_job(request, services, out.id)})


@router.get("/items")
def items(
    name: str,
    number: Number,
    services: ServicesDep,
    caller: Reader,
    task: Annotated[str, Query(description="One of the tasks that the gate compared")],
    flipped: Annotated[
        Literal["better", "worse", "any"] | None, Query(description="Only items that flipped; default: all")
    ] = None,
    cursor: Cursor = None,
    limit: PageLimit = 50,
) -> Page[PairOut]:
    """What champion and candidate answered to each held-out item, in the order of the suite."""
    after = decode_cursor(cursor)
    with transaction(services.sessions) as session:
        version = get_version(session, get_adapter(session, caller.project_id, name), number)
        found = [pair for pair in flipped_only(compared_items(session, version, task), flipped) if pair.place >= after]
    return make_page(found[: limit + 1], limit, seq=lambda pair: pair.place + 1, render=PairOut.of)


@router.post("/approve")
def approve(name: str, number: Number, body: ApproveIn, services: ServicesDep, caller: Promoter) -> Decided:
    """Make a version that waits the champion. 409 if the champion is not the one that the gate compared with."""
    return _decide(services, caller, name, number, True, body.reason, body.expected_version)


@router.post("/reject")
def reject(name: str, number: Number, body: RejectIn, services: ServicesDep, caller: Promoter) -> Decided:
    """Turn a version that waits down, for good."""
    return _decide(services, caller, name, number, False, body.reason, None)


def _decide(
    services: Services, caller: Principal, name: str, number: Number, approved: bool, reason: str, expected: int | None
) -> Decided:
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name, lock=True)
        decision, move = decide(
            session,
            adapter,
            get_version(session, adapter, number),
            approved=approved,
            actor=caller.actor,
            reason=reason,
            expected=expected,
        )
        return Decided(decision=GateDecisionOut.of(decision), move=AliasMoveOut.of(move) if move else None)
