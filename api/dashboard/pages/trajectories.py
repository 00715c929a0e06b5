"""Trajectories: searching them, reading one as a conversation, where it went, deleting it, and uploading files."""

from fastapi.concurrency import run_in_threadpool
from markupsafe import escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from api.dashboard.conversation import talk_of
from api.dashboard.pages.deletions import show_plan
from api.dashboard.rendering import fragment, show
from api.dashboard.routing import Pages, read_id
from api.dashboard.visits import HOME, Visit, admit_script
from api.endpoints import tokens, trajectories
from api.endpoints.deletions import DeletionIn
from api.endpoints.trajectory_models import RewardedTrajectory, TrajectorySummary
from api.http.pagination import decode_cursor, make_page
from api.http.problems import described
from registry.database import transaction
from registry.errors import Invalid
from registry.json_text import is_storable
from registry.names import MAX_SESSION_CHARACTERS
from registry.rewards.rewards import rewards_of_trajectory
from registry.tasks import list_tasks
from registry.trajectories.formats.formats import DEFAULT_FORMAT, check_format, format_names
from registry.trajectories.records import TrajectoryFilter, get_trajectory, list_trajectories
from registry.trajectories.words import MAX_SEARCH_CHARACTERS
from registry.versions.lineage import suites_of, touched_by

_SHOWN, _SHOWN_VERSIONS = 50, 20
IMPORT_PATH = f"{HOME}/trajectories/import"
_SEARCHED = {
    **{"text": MAX_SEARCH_CHARACTERS, "session": MAX_SESSION_CHARACTERS},
    **dict.fromkeys(("task", "version", "held_out", "rewarded", "low", "high"), 256),
}
"""The fields of the search, each with the most characters that it takes."""

pages = Pages()


@pages.get("/trajectories")
def index(visit: Visit) -> Response:
    query = visit.request.query_params
    wanted = {name: query.get(name, "").strip() for name in _SEARCHED}
    with transaction(visit.services.sessions) as session:
        rows = list_trajectories(
            session,
            visit.caller.project_id,
            _filter_of(wanted),
            newest=True,
            after=decode_cursor(query.get("cursor") or None),
            limit=_SHOWN + 1,
            with_messages=False,
        )
        tasks = [task.name for task in list_tasks(session, visit.caller.project_id)]
        found = make_page(rows, _SHOWN, seq=lambda row: row.seq, render=TrajectorySummary.of)
    return show(
        visit,
        "trajectories.html",
        wanted=wanted,
        trajectories=found.data,
        next_cursor=found.next_cursor,
        tasks=tasks,
        longest=_SEARCHED,
        formats=format_names(),
        import_path=IMPORT_PATH,
    )


@pages.get("/trajectories/{text}")
def one(visit: Visit, text: str) -> Response:
    found = read_id("trajectory", text)
    with transaction(visit.services.sessions) as session:
        row = get_trajectory(session, visit.caller.project_id, found)
        trajectory = RewardedTrajectory.of_rewarded(row, rewards_of_trajectory(session, row))
        suites = [f"{suite.task.name}#{suite.number}" for suite in suites_of(session, row)]
        touched = touched_by(session, row, most=_SHOWN_VERSIONS)
    return show(
        visit,
        "trajectory.html",
        trajectory=trajectory,
        talk=talk_of(trajectory.messages, visit.request.query_params.get("turn")),
        suites=suites,
        touched=touched,
    )


@pages.get("/trajectories/{text}/deletion", scope="admin")
def plan_deletion(visit: Visit, text: str) -> Response:
    """The dry run: what would go, and what happens to the versions that learned it."""
    policy = visit.request.query_params.get("policy", "keep")
    body = {"scope": "trajectory", "id": str(read_id("trajectory", text)), "policy": policy}
    return show_plan(visit, DeletionIn.model_validate(body))


async def _import(request: Request) -> Response:
    """A file that a script of ours sends as it is: any size, and the report with each refused line comes back."""
    services, query = request.app.state.services, request.query_params
    try:
        visit = await admit_script(request, "write")
        task, name = query.get("task") or None, check_format(query.get("format") or DEFAULT_FORMAT)
        limit = await run_in_threadpool(tokens.token_limit, services)
        report = await trajectories.import_trajectories(request, services, visit.caller, limit, name, task)
    except Exception as error:  # whatever is wrong, a person sees it beside the file
        found = await run_in_threadpool(described, request, error)
        text = f'<p class="problem" role="alert">{escape(found.detail)}</p>'
        return HTMLResponse(text, found.status)
    text = await run_in_threadpool(fragment, "import_report.html", report=report)
    return HTMLResponse(text)


def _filter_of(wanted: dict[str, str]) -> TrajectoryFilter:
    for name, text in wanted.items():
        if len(text) > _SEARCHED[name] or not is_storable(text):
            raise Invalid(f"{name} is longer than {_SEARCHED[name]} characters, or holds a NUL character")
    truths = {"yes": True, "no": False}
    return TrajectoryFilter(
        task=wanted["task"] or None,
        session_id=wanted["session"] or None,
        held_out=truths.get(wanted["held_out"]),
        rewarded=truths.get(wanted["rewarded"]),
        min_reward=_reward(wanted["low"]),
        max_reward=_reward(wanted["high"]),
        text=wanted["text"] or None,
        adapter_version=wanted["version"] or None,
    )


def _reward(text: str) -> float | None:
    try:
        found = float(text) if text else None
    except ValueError as error:
        raise Invalid(f"the reward is {text[:60]!r}; expected a number such as 0.5") from error
    if found is not None and not abs(found) < 1e9:
        raise Invalid("a reward is a finite number")
    return found


routes = [
    Route(IMPORT_PATH, _import, methods=["POST"], name="dashboard.trajectories.import"),
    *pages.routes,
]
