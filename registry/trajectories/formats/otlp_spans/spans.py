"""Spans out of OTLP's two encodings, JSON and protobuf. Pure; knows no convention about what attributes mean.

A span that is malformed is refused by itself. Log records are read beside spans: some instrumentations put the messages
of a call into them, and they name the span that they belong to.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from registry.errors import InvalidTrajectory
from registry.json_text import show
from registry.models import JsonObject

_ERROR = 2
_ERROR_NAME = "STATUS_CODE_ERROR"


@dataclass(frozen=True)
class SpanEvent:
    name: str
    attributes: JsonObject
    body: Any = None
    """The body of a log record; None for an event of a span."""


@dataclass(frozen=True)
class Span:
    trace_id: str
    """Hex digits, as `span_id`; empty for none."""
    span_id: str
    name: str
    start_ns: int
    end_ns: int
    attributes: JsonObject
    resource: JsonObject
    events: list[SpanEvent] = field(default_factory=list)
    failed: bool = False
    is_log: bool = False
    """Not a span itself, but events of the span that it names."""


def read_json(value: object) -> Iterator[Span | InvalidTrajectory]:
    """The spans of a parsed export request.

    Raises:
        InvalidTrajectory: `otlp_invalid`: it is none.
    """
    if not isinstance(value, dict) or not (_has(value, "resourceSpans") or _has(value, "resourceLogs")):
        raise InvalidTrajectory(
            "otlp_invalid", f'got {show(value)}; expected an OTLP export, {{"resourceSpans": [...]}}'
        )
    for of_resource in _dicts(value, "resourceSpans", "resource_spans"):
        resource = _json_attributes(_member(of_resource, "resource"))
        for of_scope in _dicts(of_resource, "scopeSpans", "scope_spans", "instrumentationLibrarySpans"):
            for span in _list(of_scope, "spans"):
                yield _json_span(span, resource)
    for of_resource in _dicts(value, "resourceLogs", "resource_logs"):
        resource = _json_attributes(_member(of_resource, "resource"))
        for of_scope in _dicts(of_resource, "scopeLogs", "scope_logs"):
            for record in _list(of_scope, "logRecords", "log_records"):
                if (event := _json_log(record, resource)) is not None:
                    yield event


def read_protobuf(data: bytes) -> Iterator[Span]:
    """The spans of an export request in protobuf; `TracesData` has the same bytes.

    Raises:
        InvalidTrajectory: `otlp_invalid`: it is none.
    """
    request = ExportTraceServiceRequest()
    try:
        request.ParseFromString(data)
    except DecodeError as error:
        raise InvalidTrajectory("otlp_invalid", f"no OTLP export in protobuf: {error}") from error
    for of_resource in request.resource_spans:
        resource = _proto_attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield Span(
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    name=span.name,
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    attributes=_proto_attributes(span.attributes),
                    resource=resource,
                    events=[SpanEvent(each.name, _proto_attributes(each.attributes)) for each in span.events],
                    failed=span.status.code == _ERROR,
                )


def _json_span(span: object, resource: JsonObject) -> Span | InvalidTrajectory:
    if not isinstance(span, dict):
        return InvalidTrajectory("otlp_invalid", f"spans: got {show(span)}; expected a span, an object")
    status = _member(span, "status")
    return Span(
        trace_id=_text(span, "traceId", "trace_id").lower(),
        span_id=_text(span, "spanId", "span_id").lower(),
        name=_text(span, "name"),
        start_ns=_integer(_get(span, "startTimeUnixNano", "start_time_unix_nano")),
        end_ns=_integer(_get(span, "endTimeUnixNano", "end_time_unix_nano")),
        attributes=_json_attributes(span),
        resource=resource,
        events=[SpanEvent(_text(each, "name"), _json_attributes(each)) for each in _dicts(span, "events")],
        failed=status.get("code") in (_ERROR, _ERROR_NAME),
    )


def _json_log(record: object, resource: JsonObject) -> Span | None:
    if not isinstance(record, dict) or not (span_id := _text(record, "spanId", "span_id")):
        return None
    attributes = _json_attributes(record)
    name = _text(record, "eventName", "event_name") or str(attributes.get("event.name") or "")
    time_ns = _integer(_get(record, "timeUnixNano", "time_unix_nano"))
    return Span(
        trace_id=_text(record, "traceId", "trace_id").lower(),
        span_id=span_id.lower(),
        name=name,
        start_ns=time_ns,
        end_ns=time_ns,
        attributes={},
        resource=resource,
        events=[SpanEvent(name, attributes, _json_value(record.get("body")))],
        is_log=True,
    )


def _json_attributes(holder: JsonObject) -> JsonObject:
    """Attributes of a JSON object that has them as a list of key and value. The last of a name stands."""
    found = ((each.get("key"), each.get("value")) for each in _dicts(holder, "attributes"))
    return {key: _json_value(value) for key, value in found if isinstance(key, str)}


def _json_value(value: object) -> Any:
    """An `AnyValue` as the value that it holds; integers may be texts, by protobuf's rules."""
    if not isinstance(value, dict):
        return value
    for kind, held in value.items():
        match kind:
            case "stringValue" | "boolValue" | "bytesValue" | "string_value" | "bool_value":
                return held
            case "intValue" | "int_value":
                return _integer(held)
            case "doubleValue" | "double_value":
                return held
            case "arrayValue" | "array_value":
                return [_json_value(item) for item in _list(held, "values")] if isinstance(held, dict) else []
            case "kvlistValue" | "kvlist_value":
                pairs = _dicts(held, "values") if isinstance(held, dict) else []
                return {str(pair.get("key")): _json_value(pair.get("value")) for pair in pairs}
    return None


def _proto_attributes(attributes: Any) -> JsonObject:
    return {pair.key: _proto_value(pair.value) for pair in attributes}


def _proto_value(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case "array_value":
            return [_proto_value(item) for item in value.array_value.values]
        case "kvlist_value":
            return {pair.key: _proto_value(pair.value) for pair in value.kvlist_value.values}
        case "bytes_value":
            return value.bytes_value.hex()
        case None:
            return None
        case kind:
            return getattr(value, kind)


def _get(holder: Mapping[str, Any], *names: str) -> Any:
    return next((holder[name] for name in names if holder.get(name) is not None), None)


def _has(holder: Mapping[str, Any], camel: str) -> bool:
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in camel)
    return isinstance(_get(holder, camel, snake), list)


def _list(holder: Mapping[str, Any], *names: str) -> list[Any]:
    found = _get(holder, *names)
    return found if isinstance(found, list) else []


def _dicts(holder: Mapping[str, Any], *names: str) -> list[JsonObject]:
    return [each for each in _list(holder, *names) if isinstance(each, dict)]


def _member(holder: Mapping[str, Any], name: str) -> JsonObject:
    found = holder.get(name)
    return found if isinstance(found, dict) else {}


def _text(holder: Mapping[str, Any], *names: str) -> str:
    found = _get(holder, *names)
    return found if isinstance(found, str) else ""


def _integer(value: object) -> int:
    """0 for what is none."""
    if isinstance(value, str) and len(value) <= 20:
        try:
            return int(value)
        except ValueError:
            return 0
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
