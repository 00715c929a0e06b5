"""Which run an answer names: found while it is made, said before it stands in the database.

A run goes on from one point once. Of several answers that go on from it, as those of retries and of equal runs side by
side, only one names the run: the others name one of their own, so that each answer is found by what it was told.
"""

import threading
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from registry.recordings.call import RecordedCall
from registry.recordings.joining import kind_of
from registry.recordings.open_points import OpenPoint, RunKind
from registry.trajectories.continuation import tip_of

_MOST_POINTS = 10_000


@dataclass(frozen=True)
class _Waiting:
    """The end of a conversation whose answer was taken and is not yet in the database."""

    kind: RunKind
    tip: str
    run_id: uuid.UUID


_Key = tuple[str, int]


class AnnouncedRuns:
    """What this process has announced and the database does not know yet. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: OrderedDict[_Key, _Waiting] = OrderedDict()
        """By answer."""
        self._ends: dict[str, dict[_Key, _Waiting]] = {}
        """The same by the hash of the conversation."""
        self._left: OrderedDict[tuple[uuid.UUID, str], None] = OrderedDict()
        """Points of runs that an answer has gone on from."""

    def add(self, call: RecordedCall) -> None:
        """Know where a call ends that was taken: the conversation's next request goes on from there."""
        if call.ends_run:
            return
        waiting = _Waiting(kind_of(call), tip_of(call.messages, call.answer), call.run_id)
        with self._lock:
            self._forget(_key(call))  # an upstream may number two choices alike
            self._waiting[_key(call)] = waiting
            self._ends.setdefault(waiting.tip, {})[_key(call)] = waiting
            while len(self._waiting) > _MOST_POINTS:
                self._forget(next(iter(self._waiting)))

    def remove(self, calls: Sequence[RecordedCall]) -> None:
        """Forget calls that the database has."""
        with self._lock:
            for call in calls:
                self._forget(_key(call))

    def find(self, kind: RunKind, hashes: Sequence[str]) -> OpenPoint | None:
        """The last of a conversation's points at which runs end that wait."""
        with self._lock:
            for point in reversed(hashes):
                ends = self._ends.get(point, {}).values()
                if runs := tuple(each.run_id for each in ends if kind.goes_on_in(each.kind)):
                    return OpenPoint(point, runs)
        return None

    def choose(self, point: OpenPoint | None) -> uuid.UUID:
        """The run that an answer names which goes on from this point; a new one if others have all of its runs."""
        if point is None:
            return uuid.uuid4()
        with self._lock:
            for run_id in point.run_ids:
                if (run_id, point.hash) not in self._left:
                    self._left[run_id, point.hash] = None
                    while len(self._left) > _MOST_POINTS:
                        self._left.popitem(last=False)
                    return run_id
        return uuid.uuid4()

    def _forget(self, key: _Key) -> None:
        waiting = self._waiting.pop(key, None)
        if waiting is not None:
            ends = self._ends[waiting.tip]
            del ends[key]
            if not ends:
                del self._ends[waiting.tip]


def _key(call: RecordedCall) -> _Key:
    return call.completion_id, call.choice
