"""Recordings: what is recorded of whom, what was not and why, and the runs that came of it."""

from typing import Any, Literal, get_args

from starlette.responses import Response

from api.dashboard.conversation import talk_of
from api.dashboard.rendering import show
from api.dashboard.routing import Pages, read_id
from api.dashboard.visits import HOME, Visit, go, one_of
from api.endpoints import recordings, runs
from api.endpoints.recordings import RecordingPolicyIn
from registry.adapters import list_adapters
from registry.database import transaction
from registry.errors import Invalid
from registry.json_text import is_storable
from registry.names import MAX_SESSION_CHARACTERS
from registry.tasks import list_tasks

_SHOWN_RUNS = 20
_State = Literal["open", "closing", "closed", "refused"]
_STATES: tuple[_State, ...] = get_args(_State)
_SEARCHED = ("task", "session", "completion", "state")

pages = Pages()


@pages.get("/recordings")
def index(visit: Visit) -> Response:
    query = visit.request.query_params
    wanted = {name: _wanted(name, query.get(name, "").strip()) for name in _SEARCHED}
    found = runs.get_runs(
        visit.services,
        visit.caller,
        task=wanted["task"] or None,
        session_id=wanted["session"] or None,
        completion_id=wanted["completion"] or None,
        state=one_of(wanted["state"], _STATES),
        cursor=query.get("cursor") or None,
        limit=_SHOWN_RUNS,
    )
    with transaction(visit.services.sessions) as session:
        adapters = [row.name for row in list_adapters(session, visit.caller.project_id)]
        tasks = [row.name for row in list_tasks(session, visit.caller.project_id)]
    return show(
        visit,
        "recordings.html",
        recordings=recordings.get_recordings(visit.request, visit.services, visit.caller),
        adapters=adapters,
        tasks=tasks,
        wanted=wanted,
        states=_STATES,
        longest=MAX_SESSION_CHARACTERS,
        runs=found.data,
        next_cursor=found.next_cursor,
    )


@pages.post("/recordings", scope="write", again=index)
def set_policy(visit: Visit) -> Response:
    body = RecordingPolicyIn.model_validate(
        {
            "mode": visit.text("mode"),
            "share": 1.0 if (share := visit.share("share")) is None else share,
            "task": visit.text("task") or None,
            "idle_seconds": visit.share("idle_seconds"),
        }
    )
    adapter = visit.text("adapter")
    if adapter:
        recordings.put_adapter_policy(adapter, body, visit.services, visit.caller)
    else:
        recordings.put_policy(body, visit.services, visit.caller)
    of = f"answers of {adapter}" if adapter else "answers of the project"
    return go(visit, f"{HOME}/recordings", f"Of {of}, {body.mode} is recorded from now on.")


@pages.post("/recordings/clear/{name}", scope="write")
def clear(visit: Visit, name: str) -> Response:
    recordings.delete_adapter_policy(name, visit.services, visit.caller)
    return go(visit, f"{HOME}/recordings", f"What the project says is recorded of {name} from now on.")


@pages.get("/runs/{text}")
def one_run(visit: Visit, text: str) -> Response:
    run = runs.get_one_run(read_id("run", text), visit.services, visit.caller)
    values: dict[str, Any] = {"run": run, "talk": talk_of(run.messages, visit.request.query_params.get("turn"))}
    return show(visit, "run.html", **values)


def _wanted(name: str, text: str) -> str:
    if len(text) > MAX_SESSION_CHARACTERS or not is_storable(text):
        raise Invalid(f"{name} is longer than {MAX_SESSION_CHARACTERS} characters, or holds a NUL character")
    return text
