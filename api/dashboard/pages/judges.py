"""Judges: models with a rubric, what they said, how they agree with others; made, run, bounded in what they spend."""

from dataclasses import asdict
from typing import Any, Literal, get_args

from starlette.responses import Response

from api.dashboard.forms import Places
from api.dashboard.rendering import show
from api.dashboard.routing import Pages
from api.dashboard.settings_fields import setting_fields
from api.dashboard.visits import HOME, Visit, go, one_of
from api.endpoints import jobs, judges
from api.endpoints.job_bodies import JobIn
from api.endpoints.judges import JudgeChange, JudgeIn
from api.http.idempotency import Idempotency
from registry.database import transaction
from registry.errors import AdapterNotFound, AliasNotFound, UpstreamNotFound, VersionNotFound, VersionNotServable
from registry.job_requests import JobKind
from registry.judging.judges import MAX_RUBRIC, JudgeSettings
from registry.judging.ticks import JudgingOrder
from registry.models import JUDGE_KINDS, TOO_LONG
from registry.tasks import list_tasks

_SHOWN = 20
_State = Literal["scored", "undecided", "unparsable", "refused", "too_long"]
_STATES: tuple[_State, ...] = get_args(_State)
_SETTINGS = setting_fields(JudgeSettings, {"too_long": TOO_LONG})
_OF_MODEL: Places = dict.fromkeys(
    (AdapterNotFound, AliasNotFound, VersionNotFound, VersionNotServable, UpstreamNotFound), "model"
)

pages = Pages()


@pages.get("/judges")
def index(visit: Visit) -> Response:
    return show(
        visit,
        "judges.html",
        judges=judges.get_judges(visit.services, visit.caller).data,
        kinds=JUDGE_KINDS,
        longest=MAX_RUBRIC,
        settings=_SETTINGS,
        values=asdict(JudgeSettings()),
    )


@pages.post("/judges", scope="train", again=index, places=_OF_MODEL)
def create(visit: Visit) -> Response:
    """Making an equal one again is harmless, so that a form may be sent twice."""
    named = {name: visit.text(name) for name in ("name", "kind", "model", "rubric")}
    settings = {each.name: value for each in _SETTINGS if (value := each.read(visit)) is not None}
    answer = Response(status_code=201)
    made = judges.post_judge(JudgeIn.model_validate({**named, **settings}), visit.services, visit.caller, answer)
    notice = "is made" if answer.status_code == 201 else "is there already"
    return go(visit, f"{HOME}/judges/{made.name}", f"The judge {made.name} {notice}.")


@pages.get("/judges/{name}")
def one(visit: Visit, name: str) -> Response:
    query = visit.request.query_params
    wanted = query.get("state", "")
    state = one_of(wanted, _STATES)
    judgements = judges.get_judgements(
        visit.services, visit.caller, judge=name, state=state, cursor=query.get("cursor") or None, limit=_SHOWN
    )
    with transaction(visit.services.sessions) as session:
        tasks = [row.name for row in list_tasks(session, visit.caller.project_id)]
    return show(
        visit,
        "judge.html",
        judge=judges.get_one_judge(name, visit.services, visit.caller),
        judgements=judgements.data,
        next_cursor=judgements.next_cursor,
        state=state or "",
        states=_STATES,
        tasks=tasks,
        most_calls=JudgingOrder.max_calls,
    )


@pages.post("/judges/{name}/run", scope="train", again=one)
def run(visit: Visit, name: str) -> Response:
    body: dict[str, Any] = {"kind": JobKind.JUDGE, "judge": name, "task": visit.text("task")}
    body |= {each: value for each in ("max_calls", "max_tokens") if (value := visit.number(each)) is not None}
    body |= {each: visit.text(each) == "yes" for each in ("unrewarded", "held_out", "again")}
    once = Idempotency(visit.text("once") or None, f"POST {HOME}/judges/{{name}}/run")
    job = jobs.create(JobIn.model_validate(body), visit.request, visit.services, visit.caller, once)
    return go(visit, f"{HOME}/jobs/{job.id}", "The judging is queued.")


@pages.post("/judges/{name}", scope="train", again=one)
def change(visit: Visit, name: str) -> Response:
    body = JudgeChange.model_validate({"daily_calls": visit.number("daily_calls")})
    judges.patch_judge(name, body, visit.services, visit.caller)
    return go(visit, f"{HOME}/judges/{name}", f"{name} may make {body.daily_calls} calls in 24 hours by itself.")
