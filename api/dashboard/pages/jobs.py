"""Jobs: the list, and one with its live progress, its events and its curves; cancelling."""

from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from api.dashboard.curves import losses_by_step
from api.dashboard.rendering import HEADERS, fragment, show
from api.dashboard.routing import Pages, read_id
from api.dashboard.visits import HOME, Visit, admit, go
from api.endpoints import jobs
from api.endpoints.jobs import JobNews
from api.http.event_stream import ALIVE
from api.http.problems import answer
from api.http.schemas import JobEventOut, JobOut
from registry.jobs import LIVE

_MOST_EVENTS, _SHOWN_EVENTS = 5000, 200
"""The newest events of which curves are made, those of half a day; and that are listed."""

pages = Pages()


@pages.get("/jobs")
def index(visit: Visit) -> Response:
    found = jobs.index(visit.services, visit.caller, cursor=visit.request.query_params.get("cursor"), limit=50)
    return show(visit, "jobs.html", jobs=found.data, next_cursor=found.next_cursor)


@pages.get("/jobs/{text}")
def one(visit: Visit, text: str) -> Response:
    found = jobs.look_back(visit.services, visit.caller, read_id("job", text), most=_MOST_EVENTS)
    return show(visit, "job.html", **_shown(found.job, found.events))


@pages.post("/jobs/{text}/cancel", scope="train")
def cancel(visit: Visit, text: str) -> Response:
    job = jobs.cancel(read_id("job", text), visit.services, visit.caller)
    notice = "The job is cancelled." if job.state == "cancelled" else "The job ends within seconds."
    return go(visit, f"{HOME}/jobs/{job.id}", notice)


def _shown(job: JobOut, events: Sequence[JobEventOut]) -> dict[str, Any]:
    return {
        "job": job,
        "events": events[-_SHOWN_EVENTS:],
        "live": job.state in LIVE,
        "losses": losses_by_step(events),
    }


async def _live(request: Request) -> Response:
    """The job's moving part, sent anew whenever something has changed, until it has ended."""
    services = request.app.state.services
    try:
        visit = await run_in_threadpool(admit, request, services, {}, "read")
        job_id = read_id("job", request.path_params["text"])
        first = await run_in_threadpool(jobs.look_back, services, visit.caller, job_id, most=_MOST_EVENTS)
    except Exception as error:  # the page shows its last state, and the browser tries again
        return answer(request, error)
    headers = {**HEADERS, "X-Accel-Buffering": "no"}
    following = jobs.follow(services, visit.caller, first, request.app.state.drain)
    return StreamingResponse(_parts(visit, following), media_type="text/event-stream", headers=headers)


async def _parts(visit: Visit, following: AsyncIterator[JobNews | None]) -> AsyncIterator[str]:
    events: deque[JobEventOut] = deque(maxlen=_MOST_EVENTS)
    async for news in following:
        if news is None:
            yield ALIVE
            continue
        events += news.events
        values = _shown(news.job, list(events))
        lines = (await run_in_threadpool(fragment, visit, "job_live.html", **values)).replace("\r", "").split("\n")
        yield "".join(f"data: {line}\n" for line in lines) + "\n"
        if not values["live"]:
            yield "event: ended\ndata: \n\n"  # what ends without it is requested again


routes = [
    *pages.routes,
    Route(f"{HOME}/jobs/{{text}}/live", _live, methods=["GET"], name="dashboard.jobs.live"),
]
