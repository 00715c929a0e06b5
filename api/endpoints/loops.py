"""Loops: recording, rewards, schedule, gate, canary and promotion of one adapter, set up by one call."""

from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from api.endpoints.adapters import check_trainable
from api.endpoints.bases import served_base
from api.endpoints.loop_bodies import (
    LoopChangeOut,
    LoopDeletedOut,
    LoopIn,
    LoopList,
    LoopOut,
    LoopReportOut,
    LoopSetUpOut,
)
from api.endpoints.schedules import checked_training
from api.endpoints.tasks import check_grader
from api.http.deps import Admin, Reader, ServicesDep, Trainer
from api.http.pagination import Cursor, Page, PageLimit, decode_cursor, make_page
from memgen.config import MemoryConfig
from memgen.tasks.graders import LIKELIHOOD
from registry.adapters import create_adapter, get_adapter
from registry.binding import ServedBase
from registry.clock import utc_now
from registry.database import transaction
from registry.errors import AdapterNotFound, Invalid, TaskNotFound
from registry.keys import Principal
from registry.loops import loops
from registry.loops.disks import full_disks
from registry.loops.every import WORDS, read_every
from registry.loops.findings import Surroundings
from registry.loops.plan import LoopDefaults, SetUpPart
from registry.loops.report import report_of
from registry.loops.setup import set_up_loop
from registry.models import Adapter, Task
from registry.settings import Settings
from registry.tasks import create_task, get_task
from registry.wiring import Services

router = APIRouter(prefix="/v1/loops", tags=["loops"])

SHOWN_CHANGES = 5


@router.post("", status_code=201, responses={200: {"model": LoopSetUpOut, "description": "It was there already"}})
def set_up(body: LoopIn, request: Request, services: ServicesDep, caller: Admin, response: Response) -> LoopSetUpOut:
    """Set a loop up: schedule, gate with canary, retention, recording, in one transaction.

    Sending it again is harmless: what is left out stays, what differs is changed. `setup` says which part was made,
    changed or kept. Needs the scope `admin`, because it changes which versions keep their bytes.
    """
    settings = services.settings
    training = None if body.training is None else checked_training(body.training)
    plan = body.plan(None if body.every is None else read_every(body.every), training)
    defaults = LoopDefaults(WORDS["night"], settings.retention_keep_last, checked_training({}))
    if not body.create and (body.grader or body.holdout_share or body.memory):
        raise Invalid("grader, holdout_share or memory was sent without `create`; they are of what that makes")
    base = served_base(request, services) if body.create else None
    around = _around(services)
    with transaction(services.sessions) as session:
        task, made_task = _task(session, caller, settings, body)
        adapter, made_adapter = _adapter(session, caller, settings, body, base)
        loop, parts = set_up_loop(session, adapter, task, plan, defaults, around, actor=caller.actor)
        if all(part.part != "loop" or part.outcome != "made" for part in parts):
            response.status_code = 200
        return LoopSetUpOut.with_parts(loop, [*made_adapter, *made_task, *parts])


@router.get("")
def index(services: ServicesDep, caller: Reader) -> LoopList:
    with transaction(services.sessions) as session:
        return LoopList(data=[LoopOut.of(row) for row in loops.list_loops(session, caller.project_id)])


@router.get("/{name}")
def show(name: str, services: ServicesDep, caller: Reader) -> LoopReportOut:
    """What it did in the last day, in the last week and in all, what waits, and why not."""
    around = _around(services)
    with transaction(services.sessions) as session:
        loop = loops.get_loop(session, caller.project_id, name)
        changes = loops.list_changes(session, loop, before=None, limit=SHOWN_CHANGES)
        return LoopReportOut.shown(loop, report_of(session, loop, around), changes)


@router.get("/{name}/history")
def history(
    name: str, services: ServicesDep, caller: Reader, cursor: Cursor = None, limit: PageLimit = 50
) -> Page[LoopChangeOut]:
    """Every change of the loop and of its state, newest first."""
    with transaction(services.sessions) as session:
        loop = loops.get_loop(session, caller.project_id, name)
        rows = loops.list_changes(session, loop, before=decode_cursor(cursor) or None, limit=limit + 1)
        return make_page(rows, limit, seq=lambda row: row.seq, render=LoopChangeOut.of)


@router.post("/{name}/pause")
def pause(name: str, services: ServicesDep, caller: Trainer) -> LoopOut:
    """Start no more trainings until it is resumed. Recording, a running job and a live canary go on."""
    around = _around(services)
    with transaction(services.sessions) as session:
        return LoopOut.of(loops.pause_loop(session, caller.project_id, name, around, actor=caller.actor))


@router.post("/{name}/resume")
def resume(name: str, services: ServicesDep, caller: Trainer) -> LoopOut:
    """Let it go on; failures and silences are counted anew from now."""
    around = _around(services)
    with transaction(services.sessions) as session:
        return LoopOut.of(loops.resume_loop(session, caller.project_id, name, around, actor=caller.actor))


@router.delete("/{name}")
def delete(name: str, services: ServicesDep, caller: Admin) -> LoopDeletedOut:
    """Delete the loop and its schedule, and take back the recording that it set; `stays` says what is left."""
    with transaction(services.sessions) as session:
        loop, stays = loops.delete_loop(session, caller.project_id, name, actor=caller.actor)
        return LoopDeletedOut(name=name, schedule=loop.schedule.name, stays=stays)


def _around(services: Services) -> Surroundings:
    return Surroundings(utc_now(), full_disks(services.settings))


def _task(session: Session, caller: Principal, settings: Settings, body: LoopIn) -> tuple[Task, list[SetUpPart]]:
    try:
        return get_task(session, caller.project_id, body.task), []
    except TaskNotFound as error:
        if not body.create:
            raise TaskNotFound(f"{error}, or send `create`") from error
    grader: dict[str, Any] = body.grader.model_dump() if body.grader else {"kind": LIKELIHOOD}
    check_grader(grader)
    share = body.holdout_share or settings.holdout_share
    task, _ = create_task(session, caller.project_id, body.task, grader=grader, holdout_share=share)
    text = f"{task.name}: graded by {grader['kind']}, {100 * share:g}% held out"
    return task, [SetUpPart("task", "made", text)]


def _adapter(
    session: Session, caller: Principal, settings: Settings, body: LoopIn, base: ServedBase | None
) -> tuple[Adapter, list[SetUpPart]]:
    try:
        return get_adapter(session, caller.project_id, body.adapter, lock=True), []
    except AdapterNotFound as error:
        if base is None:
            raise AdapterNotFound(f"{error}; send `create` to make it") from error
    memory = MemoryConfig.from_mapping(body.memory or {})
    check_trainable(memory)
    adapter = create_adapter(
        session,
        caller.project_id,
        name=body.adapter,
        base_model=settings.base_model,
        base_revision=base.revision,
        memory=memory.to_mapping(),
    )
    adapter.base_identity = dict(base.identity)
    text = f"{adapter.name}: of {settings.base_model}; until its first version the bare base answers for it"
    return adapter, [SetUpPart("adapter", "made", text)]
