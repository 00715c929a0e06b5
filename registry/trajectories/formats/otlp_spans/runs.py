"""Runs out of calls: requests of one conversation, each with the history of those before, joined to trajectories. Pure.

A call whose messages go on from an answered one extends it; one that goes on from an earlier point is a branch, in
which only the new turns are learned from. Calls may come in any order, and twice.
"""

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from registry.errors import InvalidTrajectory
from registry.models import JsonObject
from registry.trajectories.continuation import TurnEnd, turn_points
from registry.trajectories.draft import Draft, Sent
from registry.trajectories.finish_reasons import is_unfinished
from registry.trajectories.formats import chat
from registry.trajectories.formats.otlp_spans.calls import OWN_ATTRIBUTES, SpanCall, TraceFacts
from registry.trajectories.formats.turns import foreign_envelope

_MOST_HELD_CHARACTERS = 64_000_000
"""Text of runs that are held until the end of a file; beyond, the conversations that were quiet longest are closed."""
_MOST_TRACES_NAMED = 20


@dataclass(eq=False)
class _Leaf:
    """A conversation with its last known answer."""

    call: SpanCall
    points: list[TurnEnd]
    number: int
    size: int
    traces: dict[str, int]
    """Number of messages in front of the first call of each trace."""

    def name_trace(self, trace_id: str, place: int) -> None:
        self.traces[trace_id] = min(place, self.traces.get(trace_id, place))


@dataclass
class _Conversation:
    name: str | None
    leaves: dict[str, _Leaf] = field(default_factory=dict)
    """By the hash of the conversation up to the last answer."""
    known: dict[str, _Leaf] = field(default_factory=dict)
    """By the hash of each point of the leaves, one that has it."""
    answered: set[str] = field(default_factory=set)
    """Hashes of the points that calls have answered: what the model said, not what it was told that it said."""
    cut_off: set[str] = field(default_factory=set)
    """Points of `answered` at which an answer is not whole."""
    learned: set[str] = field(default_factory=set)
    """Points of `answered` that a trajectory has learned from already."""

    def teaches(self, point: str) -> bool:
        return point in self.answered and point not in self.cut_off and point not in self.learned


class RunJoiner:
    """Takes calls by `add`, and gives trajectories by `finish`, or before where too much would be held."""

    def __init__(self) -> None:
        self._conversations: OrderedDict[str, _Conversation] = OrderedDict()
        self._traces: dict[str, TraceFacts] = {}
        self._held = 0

    def facts(self, trace_id: str) -> TraceFacts:
        return self._traces.setdefault(trace_id, TraceFacts())

    def add(self, call: SpanCall, number: int) -> Iterator[Sent]:
        """Take a call that came in this line or document; gives the trajectories of what has to be closed for it."""
        name = call.conversation or self.facts(call.trace_id).conversation
        conversation = self._conversations.setdefault(name or "", _Conversation(name))
        self._conversations.move_to_end(name or "")
        points = turn_points([*call.messages, call.answer])
        tip = points[-1].hash
        conversation.answered.add(tip)
        if is_unfinished(call.finish_reason):
            conversation.cut_off.add(tip)
        if (later := conversation.known.get(tip)) is not None:
            if tip not in conversation.leaves:  # else it is the same call again
                later.name_trace(call.trace_id, len(call.messages))
            return
        size = len(json.dumps(call.messages))
        leaf = _Leaf(call, points, number, size, {call.trace_id: len(call.messages)})
        begun = [conversation.leaves.pop(point.hash) for point in points[:-1] if point.hash in conversation.leaves]
        for earlier in begun:
            for trace_id, place in earlier.traces.items():
                leaf.name_trace(trace_id, place)
            leaf.number = min(leaf.number, earlier.number)
            self._held -= earlier.size
        conversation.leaves[tip] = leaf
        for point in points:
            if conversation.known.get(point.hash) in (None, *begun):
                conversation.known[point.hash] = leaf
        self._held += size
        while self._held > _MOST_HELD_CHARACTERS and self._conversations:
            yield from self._close(next(iter(self._conversations)))

    def finish(self) -> Iterator[Sent]:
        while self._conversations:
            yield from self._close(next(iter(self._conversations)))

    def _close(self, name: str) -> Iterator[Sent]:
        conversation = self._conversations.pop(name)
        for leaf in sorted(conversation.leaves.values(), key=lambda leaf: leaf.call.start_ns):
            self._held -= leaf.size
            try:
                yield leaf.number, self._draft(conversation, leaf)
            except InvalidTrajectory as refusal:
                yield leaf.number, refusal

    def _draft(self, conversation: _Conversation, leaf: _Leaf) -> Draft:
        messages = [dict(message) for message in (*leaf.call.messages, leaf.call.answer)]
        for point in leaf.points:
            if not conversation.teaches(point.hash):
                for message in messages[point.start : point.end]:
                    message["weight"] = 0
        own: JsonObject = {}
        session_id = conversation.name
        traces = sorted(leaf.traces, key=lambda trace_id: leaf.traces[trace_id])
        for trace_id in traces:
            own |= self._traces[trace_id].own if trace_id in self._traces else {}
            session_id = session_id or self.facts(trace_id).conversation
        fields = foreign_envelope({"memgen": {name: own[name] for name in OWN_ATTRIBUTES if name in own}})
        about = {"traces": traces[:_MOST_TRACES_NAMED], "model": leaf.call.model, "service": leaf.call.service}
        fields["metadata"]["otlp"] = {name: value for name, value in about.items() if value}
        draft = chat.read(
            {
                **fields,
                "trajectory_id": traces[0] or None,
                "session_id": session_id,
                "adapter_version": leaf.call.adapter_version,
                "messages": messages,
                "tools": leaf.call.tools,
            }
        )
        conversation.learned.update(point.hash for point in leaf.points if point.hash in conversation.answered)
        return draft


def in_order(calls: Iterable[SpanCall]) -> list[SpanCall]:
    """Calls in the order in which they were made."""
    return sorted(calls, key=lambda call: (call.start_ns, call.end_ns))
