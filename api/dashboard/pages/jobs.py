"""Jobs: the list, and one with its live progress, its events and its curves; cancelling."""

from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from api.dashboard.curves import Curves, losses_by_step
from api.dashboard.rendering import fragment, show
from api.dashboard.routing import Pages, read_id
from api.dashboard.visits import HOME, Visit, admit, go
from api.endpoints import jobs
from api.endpoints.jobs import JobNews
from api.http.event_stream import ALIVE
from api.http.problems import answer
from api.http.schemas import JobEventOut, JobOut
from registry.errors import MissingScope, NotFound, RegistryError, SignInEnded
from registry.jobs import LIVE

_MOST_EVENTS, _SHOWN_EVENTS = 5000, 200
"""The newest events of which curves are made, those of half a day; and that are listed."""

_FINAL = SignInEnded, MissingScope, NotFound
_ENDED = "event: ended\ndata: \n\n"
"""A stream that ends without it is requested again."""

pages = Pages()


@pages.get("/jobs")
def index(visit: Visit) -> Response:
    found = jobs.index(visit.services, visit.caller, cursor=visit.request.query_params.get("cursor"), limit=50)
    return show(visit, "jobs.html", jobs=found.data, next_cursor=found.next_cursor)


@pages.get("/jobs/{text}")
def one(visit: Visit, text: str) -> Response:
    job_id = read_id("job", text)
    found = jobs.look_closely(visit.services, visit.caller, job_id, most=_MOST_EVENTS, listed=_SHOWN_EVENTS)
    return show(visit, "job.html", **_shown(found.job, found.events, losses_by_step(found.data)))


@pages.post("/jobs/{text}/cancel", scope="train")
def cancel(visit: Visit, text: str) -> Response:
    job = jobs.cancel(read_id("job", text), visit.services, visit.caller)
    notice = "The job is cancelled." if job.state == "cancelled" else "The job ends within seconds."
    return go(visit, f"{HOME}/jobs/{job.id}", notice)


def _shown(job: JobOut, events: Sequence[JobEventOut], losses: Curves) -> dict[str, Any]:
    return {
        "job": job,
        "events": events[-_SHOWN_EVENTS:],
        "live": job.state in LIVE,
        "losses": losses,
    }


async def _live(request: Request) -> Response:
    """The job's moving part, sent anew whenever something has changed, until it has ended."""
    services, text = request.app.state.services, request.path_params["text"]
    try:
        visit = await run_in_threadpool(admit, request, services, {}, "read")
        job_id = read_id("job", text)
        first = await run_in_threadpool(jobs.look_back, services, visit.caller, job_id, most=_MOST_EVENTS)
        parts = _parts(visit, jobs.follow(services, visit.caller, first, request.app.state.drain))
    except _FINAL as error:
        parts = _last_words(text, error)
    except Exception as error:  # the page shows its last state, and the browser tries again
        return answer(request, error)
    return StreamingResponse(parts, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _parts(visit: Visit, following: AsyncIterator[JobNews | None]) -> AsyncIterator[str]:
    events: deque[JobEventOut] = deque(maxlen=_MOST_EVENTS)
    async for news in following:
        if news is None:
            yield ALIVE
            continue
        try:
            # The sign-in may have ended, or its key been revoked, since the stream began.
            await run_in_threadpool(admit, visit.request, visit.services, {}, "read")
        except _FINAL as error:
            async for part in _last_words(str(news.job.id), error):
                yield part
            return
        events += news.events
        values = _shown(news.job, list(events), losses_by_step(event.data for event in events))
        yield _written(await run_in_threadpool(fragment, "job_live.html", visit=visit, **values))
        if not values["live"]:
            yield _ENDED


async def _last_words(text: str, error: RegistryError) -> AsyncIterator[str]:
    """In place of the job: to ask again would help nobody."""
    yield _written(
        fragment("job_gone.html", error=error, ended=isinstance(error, SignInEnded), page=f"{HOME}/jobs/{text}")
    )
    yield _ENDED


def _written(part: str) -> str:
    """As a server-sent event, of which no line may hold a carriage return."""
    return "".join(f"data: {line}\n" for line in part.replace("\r", "").split("\n")) + "\n"


routes = [
    *pages.routes,
    Route(f"{HOME}/jobs/{{text}}/live", _live, methods=["GET"], name="dashboard.jobs.live"),
]
