"""Trajectories over REST: sent one by one or in small lists, streamed as JSONL in bulk, read back."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from api.endpoints.import_advice import ImportAdvice
from api.endpoints.tokens import Tokens
from api.endpoints.trajectory_models import (
    IMPORT_BODY,
    TRAJECTORY_BODY,
    ImportReportOut,
    RewardedTrajectory,
    TrajectoryOut,
    TrajectorySummary,
)
from api.http.deps import Reader, ServicesDep, Writer
from api.http.pagination import Cursor, Page, PageLimit, decode_cursor, make_page
from registry.database import transaction
from registry.errors import Invalid, InvalidTrajectory
from registry.json_text import parse_json, show
from registry.keys import Principal
from registry.names import MAX_SESSION_CHARACTERS
from registry.rewards.rewards import rewards_of_trajectory
from registry.tasks import get_task
from registry.trajectories.draft import Sent
from registry.trajectories.files import SizeLimits, TrajectoryFile, read_values
from registry.trajectories.formats.formats import DEFAULT_FORMAT, check_format, format_names
from registry.trajectories.imports import (
    ImportReport,
    LineResult,
    TokenLimit,
    import_batch,
    warn_of_shared_prefixes,
)
from registry.trajectories.records import TrajectoryFilter, get_trajectory, list_trajectories
from registry.trajectories.words import MAX_SEARCH_CHARACTERS
from registry.wiring import Services

router = APIRouter(prefix="/v1", tags=["trajectories"])
log = structlog.get_logger()

MAX_ITEMS = 1_000
"""Trajectories in one JSON body; the bulk import takes any number."""

NO_NUL = r"^[^\x00]*$"
_FORMS = "multipart/"
_ENCODINGS = ("identity", "gzip", "x-gzip")
TaskName = Annotated[
    str | None, Query(description="Task of the trajectories that name none themselves", max_length=256)
]


def format_name(
    sent: Annotated[
        str,
        Query(
            alias="format",
            description="Format of what is sent; docs/formats.md shows what becomes what. `openai` is `chat`",
            max_length=256,
            json_schema_extra={"enum": format_names()},
        ),
    ] = DEFAULT_FORMAT,
) -> str:
    """The own name of the format in the query. Raises Invalid: no format has this name."""
    return check_format(sent)


FormatName = Annotated[str, Depends(format_name)]


async def json_body(request: Request) -> object:
    """The body, read by the registry's strict parser: repeated keys and NaN are refused, not guessed at."""
    return await run_in_threadpool(parse_json, await request.body())


@router.post("/trajectories", openapi_extra={"requestBody": TRAJECTORY_BODY})
def post_trajectories(
    principal: Writer,
    body: Annotated[object, Depends(json_body)],
    services: ServicesDep,
    tokens: Tokens,
    format_name: FormatName,
    task: TaskName = None,
) -> ImportReportOut:
    """Store one trajectory or up to 1,000. Sending the same again is harmless.

    A refused trajectory that was sent alone answers 422 with its code; in a list, each has its own line in the report.
    """
    importing = _Import(services, principal, tokens, task, format_name, ImportReport(every_line=True))
    importing.check_task()
    wrapped = isinstance(body, dict) and set(body) == {"trajectories"}
    alone = not wrapped and not isinstance(body, list)
    items = [body] if alone else body["trajectories"] if isinstance(body, dict) else body
    if not isinstance(items, list):
        raise Invalid(f"trajectories: got {show(items)}; expected a list of trajectories")
    if len(items) > MAX_ITEMS:
        raise Invalid(f"{len(items)} trajectories; expected at most {MAX_ITEMS}. Use POST /v1/trajectories/import.")
    importing.take(read_values(enumerate(items, 1), format_name, importing.limits))
    importing.finish(())
    results = importing.report.lines
    if alone and len(results) == 1 and results[0].code is not None:
        raise InvalidTrajectory(results[0].code, str(results[0].reason))
    return ImportReportOut.of(importing.report, lines_read=len(items))


@router.post("/trajectories/import", openapi_extra={"requestBody": IMPORT_BODY})
async def import_trajectories(
    request: Request,
    services: ServicesDep,
    principal: Writer,
    tokens: Tokens,
    format_name: FormatName,
    task: TaskName = None,
) -> ImportReportOut:
    """Stream a file of any size, plain or gzip: `curl --data-binary @file.jsonl.gz`.

    It is JSONL, one JSON list, or documents of the format. Lines are stored in batches as they arrive. A refused line
    never hinders the others. If the stream breaks off, what was stored stays, `complete` is false, and sending the
    whole file again adds only what is missing.
    """
    if request.headers.get("content-type", "").startswith(_FORMS):
        raise HTTPException(415, "a form was sent; send the file itself: curl --data-binary @file.jsonl")
    if (encoding := request.headers.get("content-encoding", "identity").lower()) not in _ENCODINGS:
        raise HTTPException(415, f"Content-Encoding {encoding!r} is not known; send the file plain or as gzip")
    importing = _Import(services, principal, tokens, task, format_name, ImportReport())
    await run_in_threadpool(importing.check_task)
    file = TrajectoryFile(format_name, importing.limits)
    try:
        async for chunk in request.stream():
            await run_in_threadpool(importing.take, file.feed(chunk), file)
    except ClientDisconnect:
        log.warning("import broken off by the client", lines=file.reader.number)
        file.abandon("the connection closed")
    await run_in_threadpool(importing.finish, file.finish())
    return ImportReportOut.of(importing.report, lines_read=file.reader.number, stopped=file.reader.stopped)


def reward_filter(
    reward_source: Annotated[
        str | None, Query(max_length=256, pattern=NO_NUL, description="Whose reward is in effect")
    ] = None,
    rewarded: Annotated[bool | None, Query(description="Only those that have a reward, or that have none")] = None,
    min_reward: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    max_reward: Annotated[float | None, Query(allow_inf_nan=False)] = None,
) -> TrajectoryFilter:
    """The query parameters of the listing that are about rewards."""
    return TrajectoryFilter(
        reward_source=reward_source, rewarded=rewarded, min_reward=min_reward, max_reward=max_reward
    )


def trajectory_filter(
    rewards: Annotated[TrajectoryFilter, Depends(reward_filter)],
    task: TaskName = None,
    session_id: Annotated[str | None, Query(max_length=MAX_SESSION_CHARACTERS, pattern=NO_NUL)] = None,
    held_out: Annotated[bool | None, Query(description="Only held-out ones, or only those to train on")] = None,
    text: Annotated[
        str | None,
        Query(
            max_length=MAX_SEARCH_CHARACTERS,
            pattern=NO_NUL,
            description='Words of the conversation: all of them; "in a row"; `or` between alternatives; `-` before '
            "what must not be there. They are found seconds after an upload",
        ),
    ] = None,
    adapter_version: Annotated[
        str | None, Query(max_length=256, pattern=NO_NUL, description="The version that answered, as `bot@7`")
    ] = None,
) -> TrajectoryFilter:
    """The query parameters of the listing."""
    return replace(
        rewards, task=task, session_id=session_id, held_out=held_out, text=text, adapter_version=adapter_version
    )


@router.get("/trajectories")
def get_trajectories(
    services: ServicesDep,
    principal: Reader,
    wanted: Annotated[TrajectoryFilter, Depends(trajectory_filter)],
    include_messages: Annotated[bool, Query(description="Messages and tools too, which may be large")] = False,
    newest: Annotated[bool, Query(description="The newest first")] = False,
    cursor: Cursor = None,
    limit: PageLimit = 50,
) -> Page[TrajectoryOut | TrajectorySummary]:
    """Trajectories in order of arrival, or the newest first."""
    with transaction(services.sessions) as session:
        if wanted.task is not None:
            get_task(session, principal.project_id, wanted.task)
        rows = list_trajectories(
            session,
            principal.project_id,
            wanted,
            newest=newest,
            after=decode_cursor(cursor),
            limit=limit + 1,
            with_messages=include_messages,
        )
        render = TrajectoryOut.of if include_messages else TrajectorySummary.of
        return make_page(rows, limit, seq=lambda row: row.seq, render=render)


@router.get("/trajectories/{trajectory}")
def get_one_trajectory(trajectory: uuid.UUID, services: ServicesDep, principal: Reader) -> RewardedTrajectory:
    """One trajectory with its messages and all its rewards, by the id that the service gave it."""
    with transaction(services.sessions) as session:
        row = get_trajectory(session, principal.project_id, trajectory)
        return RewardedTrajectory.of_rewarded(row, rewards_of_trajectory(session, row))


@dataclass
class _Import:
    """An import in progress: lines gather until a batch is full, and a batch is one transaction."""

    services: Services
    principal: Principal
    tokens: TokenLimit
    task: str | None
    format_name: str
    report: ImportReport
    waiting: list[Sent] = field(default_factory=list)
    stored_bytes: int = 0
    """Bytes that the file had given when the last batch was stored."""

    @property
    def limits(self) -> SizeLimits:
        settings = self.services.settings
        return SizeLimits(settings.max_trajectory_bytes, settings.max_document_bytes)

    def check_task(self) -> None:
        """Raises TaskNotFound, instead of refusing each of a million lines."""
        if self.task is not None:
            with transaction(self.services.sessions) as session:
                get_task(session, self.principal.project_id, self.task)

    def take(self, found: Iterable[Sent], file: TrajectoryFile | None = None) -> None:
        settings = self.services.settings
        for sent in found:
            self.waiting.append(sent)
            # Bytes count too: a batch of the longest lines would be held in memory whole.
            read = file.reader.bytes_read if file is not None else 0
            if (
                len(self.waiting) >= settings.import_batch_lines
                or read - self.stored_bytes >= settings.max_trajectory_bytes
            ):
                self._flush()
                self.stored_bytes = read

    def finish(self, rest: Iterable[Sent]) -> None:
        self.take(rest)
        self._flush()
        self.warn()

    def warn(self) -> None:
        self.report.sum_up()
        with transaction(self.services.sessions) as session:
            warn_of_shared_prefixes(session, self.principal.project_id, self.report)

    def store(self, batch: Sequence[Sent]) -> None:
        advice = ImportAdvice(self.tokens.max_tokens)
        with transaction(self.services.sessions) as session:
            results: list[LineResult] = import_batch(
                session, self.principal.project_id, batch, default_task=self.task, tokens=self.tokens, advise=advice
            )
        # Counted only once they are committed.
        self.report.add(results)

    def _flush(self) -> None:
        if self.waiting:
            self.store(self.waiting)
        self.waiting = []
