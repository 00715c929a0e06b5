"""Feedback: what people and programs said answers, runs and sessions were worth; searched, and given."""

from typing import Literal, get_args

from starlette.responses import Response

from api.dashboard.forms import Places, WrongField
from api.dashboard.rendering import show
from api.dashboard.routing import Pages, read_id
from api.dashboard.visits import HOME, Visit, go
from api.endpoints import feedback
from api.endpoints.feedback import FeedbackIn
from registry.errors import (
    CompletionNotFound,
    FeedbackDiffers,
    Invalid,
    NotFound,
    RewardDiffers,
    RunNotFound,
    TrajectoryNotFound,
)
from registry.json_text import is_storable
from registry.names import MAX_SESSION_CHARACTERS
from registry.serving.reported import FeedbackFilter

_SHOWN = 50
_SEARCHED = ("search", "source", "of", "id")
_Of = Literal["completion", "run", "session", "trajectory"]
_PLACES: Places = {
    **dict.fromkeys((CompletionNotFound, RunNotFound, TrajectoryNotFound, NotFound), "id"),
    **dict.fromkeys((FeedbackDiffers, RewardDiffers), "reward"),
}

pages = Pages()


@pages.get("/feedback")
def index(visit: Visit) -> Response:
    query = visit.request.query_params
    wanted = {name: _checked(name, query.get(name, "").strip()) for name in _SEARCHED}
    cursor = query.get("cursor") or None
    found = feedback.get_feedback(visit.services, visit.caller, _filter_of(wanted), cursor=cursor, limit=_SHOWN)
    return show(
        visit,
        "feedback.html",
        feedback=found.data,
        next_cursor=found.next_cursor,
        wanted=wanted,
        longest=MAX_SESSION_CHARACTERS,
    )


@pages.post("/feedback", scope="write", again=index, places=_PLACES)
def give(visit: Visit) -> Response:
    """The same again is harmless, so that a form may be sent twice."""
    of, reward = visit.text("of"), visit.share("reward")
    if reward is None:
        raise WrongField("reward", "the reward is missing; expected a number from 0, bad, to 1, good")
    if of not in get_args(_Of):
        raise WrongField("of", f"of is {of[:60]!r}; expected one of {', '.join(get_args(_Of))}")
    rating = {"reward": reward, "source": visit.text("source") or "user", "comment": visit.text("comment")}
    body = FeedbackIn.model_validate({f"{of}_id": _identifier(of, visit.text("id")), **rating})
    got = feedback.create(body, visit.request, visit.services, visit.caller, Response())
    notice = f"The {of} has its reward."
    if got.stopped:
        notice += f" It stopped the canary: route {got.route} has ended."
    if got.promoted:
        notice += f" It made the canary the champion: route {got.route} has ended."
    return go(visit, f"{HOME}/feedback", notice)


def _identifier(of: str, text: str) -> str:
    if not text:
        raise WrongField("id", f"the id of the {of} is missing")
    return str(read_id(of, text)) if of in ("run", "trajectory") else text


def _checked(name: str, text: str) -> str:
    if len(text) > MAX_SESSION_CHARACTERS or not is_storable(text):
        raise Invalid(f"{name} is longer than {MAX_SESSION_CHARACTERS} characters, or holds a NUL character")
    return text


def _filter_of(wanted: dict[str, str]) -> FeedbackFilter:
    of, text = wanted["of"], wanted["id"]
    return FeedbackFilter(
        search=wanted["search"] or None,
        source=wanted["source"] or None,
        completion_id=text if of == "completion" and text else None,
        run_id=read_id("run", text) if of == "run" and text else None,
        session_id=text if of == "session" and text else None,
        trajectory_id=read_id("trajectory", text) if of == "trajectory" and text else None,
    )
