"""Schedules: what trains when, what waits, what came of each time; made, changed, paused and deleted."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from api.dashboard.forms import Places
from api.dashboard.rendering import pairs_text, show
from api.dashboard.routing import Pages
from api.dashboard.visits import HOME, Visit, go
from api.endpoints import schedules
from api.endpoints.schedules import ScheduleChangeIn, ScheduleChangeOut, ScheduleIn
from api.http.idempotency import Idempotency
from memgen.config import TrainingConfig
from registry.adapters import list_adapters
from registry.database import transaction
from registry.errors import InvalidSchedule
from registry.job_requests import GOOD_REWARD
from registry.tasks import list_tasks

_SHOWN_RUNS = 50
_WHEN: Places = {InvalidSchedule: "when"}

pages = Pages()


@pages.get("/schedules")
def index(visit: Visit) -> Response:
    with transaction(visit.services.sessions) as session:
        adapters = [row.name for row in list_adapters(session, visit.caller.project_id)]
        tasks = [row.name for row in list_tasks(session, visit.caller.project_id)]
    found = schedules.index(visit.services, visit.caller).data
    return show(
        visit, "schedules.html", schedules=found, adapters=adapters, tasks=tasks, good_reward=GOOD_REWARD, new=None
    )


@pages.post("/schedules", scope="train", again=index, places=_WHEN)
def create(visit: Visit) -> Response:
    named = {name: visit.text(name) for name in ("name", "adapter", "task")}
    body = ScheduleIn.model_validate({**named, **_sent(visit)})
    once = Idempotency(visit.text("once") or None, f"POST {HOME}/schedules")
    made = schedules.create(body, visit.services, visit.caller, once)
    return go(visit, f"{HOME}/schedules/{made.name}", f"{made.name} trains {made.adapter} from now on.")


@pages.get("/schedules/{name}")
def one(visit: Visit, name: str) -> Response:
    schedule = schedules.show(name, visit.services, visit.caller)
    runs = schedules.runs(
        name,
        visit.services,
        visit.caller,
        cursor=visit.request.query_params.get("cursor") or None,
        limit=_SHOWN_RUNS,
    )
    history = schedules.history(name, visit.services, visit.caller).data
    settings = pairs_text(schedule.training, TrainingConfig().to_mapping())
    return show(
        visit,
        "schedule.html",
        schedule=schedule,
        settings=settings,
        good_reward=GOOD_REWARD,
        runs=runs.data,
        next_cursor=runs.next_cursor,
        history=[(each, _moves(each)) for each in reversed(history)],
    )


@pages.post("/schedules/{name}", scope="train", again=one, places=_WHEN)
def change(visit: Visit, name: str) -> Response:
    """All that the form shows is sent: what was emptied is no condition any more."""
    body = ScheduleChangeIn.model_validate(_sent(visit))
    body.needed()
    schedules.change(name, body, visit.services, visit.caller)
    return go(visit, f"{HOME}/schedules/{name}", f"{name} is changed.")


@pages.post("/schedules/{name}/pause", scope="train")
def pause(visit: Visit, name: str) -> Response:
    schedules.change(name, ScheduleChangeIn(paused=True), visit.services, visit.caller)
    return go(visit, f"{HOME}/schedules/{name}", f"{name} is paused.")


@pages.post("/schedules/{name}/resume", scope="train")
def resume(visit: Visit, name: str) -> Response:
    schedules.change(name, ScheduleChangeIn(paused=False), visit.services, visit.caller)
    return go(visit, f"{HOME}/schedules/{name}", f"{name} goes on.")


@pages.post("/schedules/{name}/delete", scope="train")
def delete(visit: Visit, name: str) -> Response:
    schedules.delete(name, visit.services, visit.caller)
    return go(visit, f"{HOME}/schedules", f"The schedule {name} is deleted; its jobs stay.")


def _sent(visit: Visit) -> dict[str, Any]:
    return {
        "cron": visit.text("cron") or None,
        "time_zone": visit.text("time_zone") or None,
        "new_trajectories": visit.number("new_trajectories"),
        "idle_hours": visit.share("idle_hours"),
        "training": visit.pairs("training"),
        "min_reward": GOOD_REWARD if (reward := visit.share("min_reward")) is None else reward,
        "promote": visit.text("promote") == "yes",
    }


def _moves(change: ScheduleChangeOut) -> list[tuple[str, Any, Any]]:
    """What a change moved: the setting, from, to. Of a creation, a deletion, a pause the kind says it all."""
    if change.kind != "changed":
        return []
    before, after = _flat(change.before), _flat(change.after)
    return [(name, before.get(name), value) for name, value in after.items() if before.get(name) != value]


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    params = settings.get("params", {})
    return {**settings, **params, **params.get("training", {}), "params": None, "training": None}
