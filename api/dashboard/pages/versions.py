"""One version: what it learned from, its curves, its gate with every flipped item, and what may be done with it."""

from typing import Any, Literal, get_args

from starlette.responses import Response

from api.dashboard.curves import losses_of
from api.dashboard.rendering import show
from api.dashboard.routing import Pages
from api.dashboard.visits import HOME, Visit, go, one_of
from api.endpoints import adapters, gates, jobs, transfer, versions
from api.endpoints.gates import ApproveIn, PairOut, RejectIn
from api.endpoints.job_bodies import JobIn
from api.endpoints.versions import ReasonIn
from api.http.idempotency import Idempotency
from memgen.config import LEARNED_TRIGGERS, MemoryConfig
from registry.adapters import get_adapter
from registry.database import transaction
from registry.errors import GateNotFound, TaskNotFound
from registry.gates.audit import other_answers
from registry.job_requests import JobKind
from registry.tasks import list_tasks
from registry.versions.records import get_version
from registry.versions.tags import version_changes

_SHOWN_ITEMS = 20
_Flipped = Literal["better", "worse", "any"]
_FLIPPED: tuple[_Flipped, ...] = get_args(_Flipped)

pages = Pages()


@pages.get("/adapters/{name}/versions/{number}")
def one(visit: Visit, name: str, number: int) -> Response:
    version = adapters.version(name, number, visit.services, visit.caller)
    lineage = versions.lineage(name, number, visit.services, visit.caller)
    with transaction(visit.services.sessions) as session:
        row = get_version(session, get_adapter(session, visit.caller.project_id, name), number)
        adapter = row.adapter
        has_trigger = row.form != "lora" and MemoryConfig.from_mapping(adapter.memory).trigger in LEARNED_TRIGGERS
        tasks = [task.name for task in list_tasks(session, visit.caller.project_id)]
        [state] = versions.states_of_versions(session, [row])
        changes = [(each.kind, each.actor, each.reason, each.at) for each in version_changes(session, row)]
    return show(
        visit,
        "version.html",
        version=version,
        lineage=lineage,
        state_row=state,
        changes=changes,
        has_trigger=has_trigger,
        tasks=tasks,
        losses=losses_of(version.report),
        flags=version.report.get("flags") or [],
    )


@pages.get("/adapters/{name}/versions/{number}/items")
def items(visit: Visit, name: str, number: int) -> Response:
    """The gate's evidence on one task, item by item."""
    query = visit.request.query_params
    gate = gates.show(name, number, visit.services, visit.caller)
    tasks = [comparison["task"] for comparison in gate.comparisons]
    if not tasks:
        raise GateNotFound(f"the gate of {name}@{number} compared no items")
    task = query.get("task") or tasks[0]
    wanted = query.get("flipped", "any")
    flipped = one_of(wanted, _FLIPPED)
    found = gates.items(name, number, visit.services, visit.caller, task, flipped, query.get("cursor"), _SHOWN_ITEMS)
    with transaction(visit.services.sessions) as session:
        version = get_version(session, get_adapter(session, visit.caller.project_id, name), number)
        places = [(pair.place, pair.trajectory_id) for pair in found.data]
        beside = (
            [(each.base, each.reference) for each in other_answers(session, version, task, places)] if places else []
        )
    return show(
        visit,
        "items.html",
        gate=gate,
        tasks=tasks,
        task=task,
        flipped=flipped or "all",
        items=[(pair, _title(pair), *sides) for pair, sides in zip(found.data, beside, strict=True)],
        next_cursor=found.next_cursor,
    )


@pages.get("/adapters/{name}/versions/{number}/export", scope="promote")
def export(visit: Visit, name: str, number: int) -> Response:
    is_head = bool(getattr(visit.request.state, "is_head", False))
    return transfer.export(name, number, visit.services, visit.caller, is_head)


@pages.post("/adapters/{name}/versions/{number}/gate", scope="train")
def run_gate(visit: Visit, name: str, number: int) -> Response:
    job = gates.run(name, number, visit.request, visit.services, visit.caller)
    return go(visit, f"{HOME}/jobs/{job.id}", f"The gate of {name}@{number} is queued.")


@pages.post("/adapters/{name}/versions/{number}/trigger", scope="train", again=one, places={TaskNotFound: "tasks"})
def train_trigger(visit: Visit, name: str, number: int) -> Response:
    steps, environment = visit.number("steps"), visit.text("environment")
    played: dict[str, Any] = {"name": environment, "options": visit.pairs("environment_options")}
    played |= {} if (items := visit.number("items")) is None else {"items": items}
    body = JobIn.model_validate(
        {
            "kind": JobKind.TRAIN_TRIGGER,
            "adapter": name,
            "parent": number,
            "tasks": visit.text("tasks").split() or None,
            "training": visit.pairs("settings") | ({} if steps is None else {"steps": steps}),
            "environment": played if environment else None,
            "promote": visit.text("promote") == "yes",
        }
    )
    once = Idempotency(visit.text("once") or None, f"POST {HOME}/adapters/{{name}}/versions/{{number}}/trigger")
    job = jobs.create(body, visit.request, visit.services, visit.caller, once)
    return go(visit, f"{HOME}/jobs/{job.id}", "The training of the trigger is queued.")


@pages.post("/adapters/{name}/versions/{number}/approve", scope="promote")
def approve(visit: Visit, name: str, number: int) -> Response:
    body = ApproveIn(reason=visit.text("reason"), expected_version=visit.number("expected_version"))
    gates.approve(name, number, body, visit.services, visit.caller)
    return go(visit, _page(name, number), f"{name}@{number} is the champion now.")


@pages.post("/adapters/{name}/versions/{number}/reject", scope="promote")
def reject(visit: Visit, name: str, number: int) -> Response:
    gates.reject(name, number, RejectIn(reason=visit.text("reason")), visit.services, visit.caller)
    return go(visit, _page(name, number), f"{name}@{number} was turned down.")


@pages.post("/adapters/{name}/versions/{number}/archive", scope="promote")
def archive(visit: Visit, name: str, number: int) -> Response:
    versions.put_away(name, number, ReasonIn(reason=visit.text("reason")), visit.services, visit.caller)
    return go(visit, _page(name, number), f"{name}@{number} is archived.")


@pages.post("/adapters/{name}/versions/{number}/unarchive", scope="promote")
def unarchive(visit: Visit, name: str, number: int) -> Response:
    versions.take_out(name, number, ReasonIn(reason=visit.text("reason")), visit.services, visit.caller)
    return go(visit, _page(name, number), f"{name}@{number} is in the lists again.")


def _page(name: str, number: int) -> str:
    return f"{HOME}/adapters/{name}/versions/{number}"


def _title(pair: PairOut) -> str:
    return {"better": "got better", "worse": "got worse", None: "as before"}.get(pair.flipped, str(pair.flipped))
