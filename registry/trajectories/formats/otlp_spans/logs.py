"""Log records that hold the messages of spans, wherever in a file they stand. Pure."""

from collections.abc import Iterable
from dataclasses import replace

from registry.trajectories.formats.otlp_spans.spans import Span, SpanEvent

_MOST_HELD_CHARACTERS = 64_000_000
"""Text of records that wait for the end of a file at most."""

_Name = tuple[str, str]


class SpanLogs:
    """The records of a file, by the span that each names."""

    def __init__(self) -> None:
        self._events: dict[_Name, list[list[SpanEvent]]] = {}
        self._held = 0

    @property
    def is_full(self) -> bool:
        """Whether no more should be held."""
        return self._held > _MOST_HELD_CHARACTERS

    def add(self, records: Iterable[Span]) -> None:
        """Take the records of one export. What was exported before adds nothing."""
        of_spans: dict[_Name, list[SpanEvent]] = {}
        for record in records:
            of_spans.setdefault(_name(record), []).extend(record.events)
        for name, events in of_spans.items():
            known = self._events.setdefault(name, [])
            if events not in known:
                known.append(events)
                self._held += sum(len(str(event)) for event in events)

    def put_into(self, span: Span) -> Span:
        """The span with the events that its records are."""
        events = [event for export in self._events.get(_name(span), ()) for event in export]
        return replace(span, events=[*span.events, *events])


def once(spans: Iterable[Span]) -> list[Span]:
    """The spans, each once: one that was exported twice is the same one."""
    found: dict[_Name, Span] = {}
    for span in spans:
        found.setdefault(_name(span) if span.span_id else ("", str(len(found))), span)
    return list(found.values())


def with_logs(spans: Iterable[Span]) -> list[Span]:
    """The spans of one export without its log records, whose events are put into the spans that they name."""
    both, logs = list(spans), SpanLogs()
    logs.add(span for span in both if span.is_log)
    return [logs.put_into(span) for span in once(span for span in both if not span.is_log)]


def _name(span: Span) -> _Name:
    return span.trace_id, span.span_id
