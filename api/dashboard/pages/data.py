"""Tasks, recordings and deletions: what there is to learn from, how it comes in, and what was taken out."""

from starlette.responses import Response

from api.dashboard.rendering import show
from api.dashboard.routing import Pages
from api.dashboard.visits import HOME, Visit, go
from api.endpoints import deletions, recordings, runs, tasks
from api.endpoints.recordings import RecordingPolicyIn

pages = Pages()


@pages.get("/tasks")
def task_list(visit: Visit) -> Response:
    return show(visit, "tasks.html", tasks=tasks.get_tasks(visit.services, visit.caller).data)


@pages.get("/recordings")
def recording(visit: Visit) -> Response:
    found = recordings.get_recordings(visit.request, visit.services, visit.caller)
    newest = runs.get_runs(visit.services, visit.caller, limit=20).data
    return show(visit, "recordings.html", recordings=found, runs=newest)


@pages.post("/recordings/policy", scope="write")
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


@pages.get("/deletions", scope="admin")
def deletion_list(visit: Visit) -> Response:
    found = deletions.deletions(visit.services, visit.caller, cursor=visit.request.query_params.get("cursor"), limit=50)
    return show(visit, "deletions.html", deletions=found.data, next_cursor=found.next_cursor)
