"""Jobs: the list, and one with its live progress, its events and its curves; cancelling."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from api.dashboard.rendering import HEADERS, fragment, show
from api.dashboard.routing import Pages, read_id
from api.dashboard.visits import HOME, Visit, admit, go
from api.endpoints import jobs
from api.http.problems import answer
from api.http.schemas import JobEventOut
from registry.jobs import LIVE

_SHOWN_EVENTS = 500

pages = Pages()


@pages.get("/jobs")
def index(visit: Visit) -> Response:
    found = jobs.index(visit.services, visit.caller, cursor=visit.request.query_params.get("cursor"), limit=50)
    return show(visit, "jobs.html", jobs=found.data, next_cursor=found.next_cursor)


@pages.get("/jobs/{text}")
def one(visit: Visit, text: str) -> Response:
    return show(visit, "job.html", **_shown(visit, read_id("job", text)))


@pages.post("/jobs/{text}/cancel", scope="train")
def cancel(visit: Visit, text: str) -> Response:
    job = jobs.cancel(read_id("job", text), visit.services, visit.caller)
    notice = "The job is cancelled." if job.state == "cancelled" else "The job ends within seconds."
    return go(visit, f"{HOME}/jobs/{job.id}", notice)


def _shown(visit: Visit, job_id: uuid.UUID) -> dict[str, Any]:
    job = jobs.show(job_id, visit.services, visit.caller)
    events = jobs.events(job_id, visit.services, visit.caller, after=0, limit=_SHOWN_EVENTS).data
    return {"job": job, "events": events, "live": job.state in LIVE, "curve_of": curve(events)}


def curve(events: list[JobEventOut]) -> dict[str, list[float]]:
    """The loss that each event tells, by its step."""
    reported = [event.data for event in events if "loss" in event.data and "step" in event.data]
    return {"x": [float(each["step"]) for each in reported], "loss": [float(each["loss"]) for each in reported]}


async def _live(request: Request) -> Response:
    """The job's moving part, sent anew whenever something has changed, until it has ended."""
    services = request.app.state.services
    try:
        visit = await run_in_threadpool(admit, request, services, {}, "read")
        job_id = read_id("job", request.path_params["text"])
        stream = await jobs.stream(job_id, request, services, visit.caller, after=0, last_event_id=None)
    except Exception as error:  # the page shows its last state, and the browser tries again
        return answer(request, error)
    headers = {**HEADERS, "X-Accel-Buffering": "no"}
    return StreamingResponse(_parts(visit, job_id, stream), media_type="text/event-stream", headers=headers)


async def _parts(visit: Visit, job_id: uuid.UUID, stream: StreamingResponse) -> AsyncIterator[str]:
    async for chunk in stream.body_iterator:
        text = chunk if isinstance(chunk, str) else bytes(chunk).decode()
        if text.startswith(":"):
            yield text
        elif "event: job\n" in text:
            values = await run_in_threadpool(_shown, visit, job_id)
            lines = fragment(visit, "job_live.html", **values).replace("\r", "").split("\n")
            yield "".join(f"data: {line}\n" for line in lines) + "\n"
            if not values["live"]:
                yield "event: ended\ndata: \n\n"  # what ends without it is requested again


routes = [
    *pages.routes,
    Route(f"{HOME}/jobs/{{text}}/live", _live, methods=["GET"], name="dashboard.jobs.live"),
]
