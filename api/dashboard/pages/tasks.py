"""Tasks: the list, making one, and one with its items, its suites, the versions that learned it, and its judge."""

from typing import Any

from starlette.responses import Response

from api.dashboard.rendering import show
from api.dashboard.routing import Pages
from api.dashboard.visits import HOME, Visit, go
from api.endpoints import judges, tasks
from api.endpoints.tasks import TaskChange, TaskIn
from memgen.errors import UnknownGrader
from memgen.tasks.graders import LIKELIHOOD, grader_kinds, grader_options
from registry.database import transaction
from registry.datasets.suites import newest_suites
from registry.errors import JudgeNotFound
from registry.gates.verdict import gates_of, verdict
from registry.tasks import MAX_SHARED_TURNS, get_task
from registry.versions.records import versions_of_task

_SHOWN_SUITES, _SHOWN_VERSIONS = 5, 20

pages = Pages()


@pages.get("/tasks")
def index(visit: Visit) -> Response:
    return show(
        visit,
        "tasks.html",
        tasks=tasks.get_tasks(visit.services, visit.caller).data,
        graders=_graders(),
        share=visit.services.settings.holdout_share,
        most_shared_turns=MAX_SHARED_TURNS,
    )


@pages.post("/tasks", scope="write", again=index, places={UnknownGrader: "graded"})
def create(visit: Visit) -> Response:
    """Making an equal one again is harmless, so that a form may be sent twice."""
    body = TaskIn.model_validate(
        {
            "name": visit.text("name"),
            "description": visit.text("description"),
            "grader": {"kind": visit.text("grader"), **visit.lines("options")},
            "holdout_share": visit.share("holdout_share"),
            "shared_turns": visit.number("shared_turns") or 0,
        }
    )
    answer = Response(status_code=201)
    made = tasks.post_task(body, visit.services, visit.caller, answer)
    notice = (
        f"The task {made.name} is made." if answer.status_code == 201 else f"The task {made.name} is there already."
    )
    return go(visit, f"{HOME}/tasks/{made.name}", notice)


@pages.get("/tasks/{name}")
def one(visit: Visit, name: str) -> Response:
    found = tasks.get_one_task(name, visit.services, visit.caller)
    with transaction(visit.services.sessions) as session:
        task = get_task(session, visit.caller.project_id, name)
        suites = [(each.number, each.items, each.created_at) for each in newest_suites(session, task, _SHOWN_SUITES)]
        rows = versions_of_task(session, task, _SHOWN_VERSIONS + 1)
        gates = gates_of(session, rows)
        versions = [(row.adapter.name, row.number, verdict(gates.get(row.id)), row.created_at) for row in rows]
    return show(
        visit,
        "task.html",
        task=found,
        options=_options(found.grader),
        suites=suites,
        versions=versions[:_SHOWN_VERSIONS],
        more_versions=len(versions) > _SHOWN_VERSIONS,
        judges=[judge.name for judge in judges.get_judges(visit.services, visit.caller).data],
    )


@pages.post("/tasks/{name}", scope="train", again=one, places={JudgeNotFound: "judge"})
def change(visit: Visit, name: str) -> Response:
    """Its judge, and what the judge's scores are for: all of a task that may change."""
    body = TaskChange.model_validate(
        {"judge": visit.text("judge") or None, "judge_rewards": visit.text("judge_rewards") or None}
    )
    changed = tasks.patch_task(name, body, visit.services, visit.caller)
    who = f"{changed.judge} judges" if changed.judge else "Nobody judges"
    return go(visit, f"{HOME}/tasks/{name}", f"{who} what comes for {name} from now on.")


def _graders() -> list[tuple[str, str]]:
    """Each kind with the options that it takes; first the one that a task has if nobody says otherwise."""
    kinds = sorted(grader_kinds(), key=lambda kind: (kind != LIKELIHOOD, kind))
    return [(kind, grader_options(kind)) for kind in kinds]


def _options(grader: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in grader.items() if name != "kind"}
