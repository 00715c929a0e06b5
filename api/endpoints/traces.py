"""`/v1/traces`: OTLP over HTTP, for the exporters of agents that are traced already.

The calls of models among the spans are recorded like those that this service answers: the recorder joins them to runs,
whichever exports they come in. All other spans are accepted and dropped.
"""

import json
import zlib
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from api.http.deps import ServicesDep, Writer
from api.http.otlp_errors import JSON, PROTOBUF, is_protobuf
from api.recording.span_calls import TakenSpans, TraceSender, record_spans
from api.recording.span_rewards import reward_traces
from registry.errors import InvalidTrajectory
from registry.json_text import parse_json
from registry.names import check_name
from registry.trajectories.formats.otlp_spans.calls import SpanCall, TraceFacts, is_model_call, read_calls
from registry.trajectories.formats.otlp_spans.logs import with_logs
from registry.trajectories.formats.otlp_spans.runs import in_order
from registry.trajectories.formats.otlp_spans.spans import Span, read_json, read_protobuf

router = APIRouter(prefix="/v1", tags=["trajectories"])

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        PROTOBUF: {"schema": {"type": "string", "format": "binary", "description": "ExportTraceServiceRequest"}},
        JSON: {"schema": {"type": "object", "properties": {"resourceSpans": {"type": "array"}}}},
    },
}
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "ExportTraceServiceResponse in the request's encoding. `partialSuccess` says how many calls of "
        "models were not recorded, and why.",
        "content": {
            JSON: {"schema": {"type": "object", "properties": {"partialSuccess": {"type": "object"}}}},
            PROTOBUF: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.post("/traces", openapi_extra={"requestBody": _BODY}, responses=_ANSWER, response_class=Response)
async def post_traces(
    request: Request,
    services: ServicesDep,
    principal: Writer,
    task: Annotated[str | None, Header(alias="X-Memgen-Task", description="Task of the calls", max_length=256)] = None,
) -> Response:
    """Take spans from an OpenTelemetry exporter, in protobuf or JSON, plain, gzip or deflate.

    Calls of models with their messages are recorded; the header `X-Memgen-Task`, the attribute `memgen.task` or the
    project's recording policy names their task. An exporter sends the key by `Authorization` or `x-api-key`.
    """
    sender = TraceSender(
        principal.project_id, principal.key_id, principal.actor, check_name("task", task) if task else None
    )
    limit = services.settings.max_traces_bytes
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", *_WINDOW_BITS):
        raise HTTPException(415, f"Content-Encoding {encoding[:60]!r}; expected gzip, deflate or none")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (PROTOBUF, JSON):
        raise HTTPException(415, f"Content-Type {kind[:60]!r}; expected {PROTOBUF} or {JSON}")
    body = await request.body()
    outcome = TakenSpans()

    def work() -> None:
        data = body if encoding == "identity" else _unpack(body, encoding, limit)
        calls, facts = _read(data, kind == PROTOBUF, outcome)
        record_spans(services, request.app.state.recorder, sender, calls, facts, outcome)
        reward_traces(services, request.app.state.recorder, sender, calls, facts, outcome)

    await run_in_threadpool(work)
    return _answer(outcome, protobuf=is_protobuf(request.headers))


def _unpack(body: bytes, encoding: str, limit: int) -> bytes:
    """Raises HTTPException: damaged, or longer than allowed."""
    inflate = zlib.decompressobj(wbits=_WINDOW_BITS[encoding])
    try:
        data = inflate.decompress(body, limit + 1)
    except zlib.error as error:
        raise HTTPException(400, f"the {encoding} data is damaged ({error})") from error
    if len(data) > limit:
        raise HTTPException(413, f"more than {limit} bytes unpacked; the limit is MEMGEN_MAX_TRACES_BYTES")
    if not inflate.eof:
        raise HTTPException(400, f"the {encoding} data ends before its end mark")
    return data


def _read(data: bytes, protobuf: bool, outcome: TakenSpans) -> tuple[list[SpanCall], dict[str, TraceFacts]]:
    """The calls in order, and what their traces say of themselves.

    Raises:
        InvalidJson, InvalidTrajectory: it is no OTLP at all.
    """
    found: Iterator[Span | InvalidTrajectory]
    found = read_protobuf(data) if protobuf else read_json(parse_json(data)) if data else iter(())
    facts: dict[str, TraceFacts] = {}
    calls: list[SpanCall] = []
    kept: list[Span] = []
    # One by one: a span of nothing is two bytes as it is sent, and some hundred times that as it is read.
    for span in found:
        if isinstance(span, InvalidTrajectory):
            outcome.reject(span.code, str(span))
            continue
        if not span.is_log:
            facts.setdefault(span.trace_id, TraceFacts()).learn(span)
        if span.is_log or is_model_call(span):
            kept.append(span)
    for span in with_logs(kept):
        try:
            calls += read_calls(span)
        except InvalidTrajectory as refusal:
            outcome.reject(refusal.code, str(refusal))
    return in_order(calls), facts


def _answer(outcome: TakenSpans, *, protobuf: bool) -> Response:
    answer = ExportTraceServiceResponse()
    if outcome.rejected:
        answer.partial_success.rejected_spans = outcome.rejected
        answer.partial_success.error_message = outcome.message.encode("utf-8", "replace").decode()[:2000]
    if protobuf:
        return Response(answer.SerializeToString(), media_type=PROTOBUF)
    partial = {"rejectedSpans": str(outcome.rejected), "errorMessage": answer.partial_success.error_message}
    return Response(json.dumps({"partialSuccess": partial} if outcome.rejected else {}), media_type=JSON)
