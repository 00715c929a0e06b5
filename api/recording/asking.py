"""What a request says of its recording: its headers, `store`, and `metadata.task`."""

from collections.abc import Mapping, Sequence
from typing import Any

from registry.errors import Invalid
from registry.json_text import show
from registry.names import check_name
from registry.recordings.policies import RecordingAsk
from registry.trajectories.continuation import turn_points

TASK_HEADER = "X-Memgen-Task"
RUN_HEADER = "X-Memgen-Run"
END = "end"


def read_ask(headers: Mapping[str, str], *, store: bool | None, metadata: Mapping[str, str]) -> RecordingAsk:
    """Raises Invalid: a header has another value than it may; InvalidName: the header names no task."""
    task, run = headers.get(TASK_HEADER), headers.get(RUN_HEADER)
    if task is not None:
        check_name("task", task)
    if run is not None and run.strip().lower() != END:
        raise Invalid(f"{RUN_HEADER} is {show(run[:60])}; expected `{END}`, or no such header")
    return RecordingAsk(store, task or metadata.get("task") or None, task is not None, run is not None)


def beginning_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """A text that is the same for all requests of one run: what stands in front of its first answer."""
    points = turn_points(messages)
    return repr(messages[: points[0].start] if points else messages)
