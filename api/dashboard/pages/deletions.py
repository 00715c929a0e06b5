"""Deletions: what was taken out and how the versions that learned it are made good, and deleting behind a dry run."""

from typing import Any

from starlette.responses import Response

from api.dashboard.forms import WrongField
from api.dashboard.rendering import show
from api.dashboard.routing import Pages, read_id
from api.dashboard.visits import HOME, Visit, go
from api.endpoints import deletions
from api.endpoints.deletions import DeletionIn
from registry.errors import PolicyKeepsWords, TrajectoryNotFound

_SHOWN, _SHOWN_VERSIONS = 50, 20

pages = Pages()


@pages.get("/deletions", scope="admin")
def index(visit: Visit) -> Response:
    cursor = visit.request.query_params.get("cursor") or None
    found = deletions.brief_deletions(visit.services, visit.caller, cursor=cursor, limit=_SHOWN)
    return show(visit, "deletions.html", deletions=found.data, next_cursor=found.next_cursor)


@pages.post(
    "/deletions/plan",
    scope="admin",
    again=index,
    places={TrajectoryNotFound: "id", PolicyKeepsWords: "policy"},
)
def plan(visit: Visit) -> Response:
    """The dry run. It is sent as a form, so that nobody's name stands in an address and in the logs of proxies."""
    return show_plan(visit, DeletionIn.model_validate(_subject(visit)))


def show_plan(visit: Visit, body: DeletionIn) -> Response:
    """What a dry run finds, and the form that carries it out: it names the number of trajectories that is shown."""
    found = deletions.delete(body, visit.request, visit.services, visit.caller)
    return show(visit, "deletion_plan.html", body=body, plan=found, versions=_versions(found.affected))


def _plan_again(visit: Visit) -> Response:
    """Anew: what was wrong may be that the numbers are others by now."""
    return show_plan(visit, DeletionIn.model_validate(_subject(visit)))


@pages.post("/deletions", scope="admin", again=_plan_again)
def delete(visit: Visit) -> Response:
    """Another number than was seen is refused, by the very rule of the API, and the dry run is shown anew."""
    expected = visit.number("expected")
    if expected is None:
        raise WrongField("", "the form does not say how many trajectories its dry run has shown; look at it again")
    confirmed = {"reason": visit.text("reason"), "expected": expected, "dry_run": False}
    body = DeletionIn.model_validate(_subject(visit) | confirmed)
    done = deletions.delete(body, visit.request, visit.services, visit.caller)
    return go(visit, f"{HOME}/deletions/{done.id}", "It is deleted for good.")


@pages.get("/deletions/{text}", scope="admin")
def one(visit: Visit, text: str) -> Response:
    found = deletions.show_deletion(read_id("deletion", text), visit.services, visit.caller)
    return show(visit, "deletion.html", deletion=found, versions=_versions(found.affected))


def _subject(visit: Visit) -> dict[str, Any]:
    return {name: visit.text(name) for name in ("scope", "id", "policy")}


def _versions(affected: dict[str, Any]) -> list[dict[str, Any]]:
    """The versions that are listed: those that serve before the others, which may be thousands."""
    every = affected["versions"]
    serving = [each for each in every if each["aliases"] or each["routes"]]
    others = [each for each in every if not each["aliases"] and not each["routes"]]
    return [*serving, *others][:_SHOWN_VERSIONS]
