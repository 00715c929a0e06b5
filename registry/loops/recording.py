"""The recording policy that a loop sets, and what a deletion of the loop takes back.

A loop learns from what is recorded, so it records all requests of its adapter (`store: false` still keeps one out),
under its task. A policy that the adapter has already stays, unless another one is asked for.
"""

import uuid
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy.orm import Session

from registry.models import Loop, RecordingPolicy, Task
from registry.recordings.policies import find_policy, set_policy

MODE = "all"
Outcome = Literal["made", "changed", "kept"]


@dataclass(frozen=True)
class RecordingWish:
    """How the loop's adapter is to be recorded. None leaves what is there, or takes the default for what is not."""

    mode: str | None = None
    share: float | None = None
    idle_seconds: float | None = None


def set_up_recording(session: Session, loop: Loop, wish: RecordingWish, *, actor: str) -> tuple[Outcome, str]:
    """Set the adapter's policy. Returns what became of it, and what it is, for people.

    Raises:
        Invalid: a value is none.
    """
    present = find_policy(session, loop.project_id, loop.adapter)
    before = None if present is None else _as_json(present)
    if present is not None and wish == RecordingWish():
        return "kept", _in_words(present, loop)
    row = set_policy(
        session,
        loop.project_id,
        loop.adapter,
        mode=wish.mode or (present.mode if present else MODE),
        share=wish.share if wish.share is not None else present.share if present else 1.0,
        task=present.task if present is not None and present.task is not None else loop.task,
        idle_seconds=wish.idle_seconds if wish.idle_seconds is not None else present.idle_seconds if present else None,
        actor=actor,
    )
    after = _as_json(row)
    if before == after:
        return "kept", _in_words(row, loop)
    former = loop.setup.get("recording")
    # What somebody has set since is theirs, and comes back in place of what was before the loop.
    first = former["before"] if former is not None and former["after"] == before else before
    loop.setup = {**loop.setup, "recording": {"before": first, "after": after}}
    return ("made" if before is None else "changed"), _in_words(row, loop)


def say_recording(session: Session, loop: Loop) -> str:
    """What of the adapter's answers is recorded now, whoever said so, for people."""
    row = find_policy(session, loop.project_id, loop.adapter)
    if row is not None:
        return _in_words(row, loop)
    row = find_policy(session, loop.project_id, None)
    return "what asks to be stored" if row is None else f"by the project's policy, {_in_words(row, loop)}"


def restore_recording(session: Session, loop: Loop, *, actor: str) -> list[str]:
    """Take back the policy that the loop set, if it still stands. Returns what stays, for people."""
    row = find_policy(session, loop.project_id, loop.adapter)
    mine = loop.setup.get("recording")
    if row is None:
        return []
    if mine is None or mine["after"] != _as_json(row):
        return [f"the recording policy of {loop.adapter.name}, which the loop did not make: {_in_words(row, loop)}"]
    before = mine["before"]
    if before is None:
        session.delete(row)
        session.flush()
        return []
    row.mode, row.share, row.idle_seconds, row.actor = before["mode"], before["share"], before["idle_seconds"], actor
    row.task = None if before["task"] is None else session.get(Task, uuid.UUID(before["task"]))
    session.flush()
    return [f"the recording policy of {loop.adapter.name}, as it was before the loop: {_in_words(row, loop)}"]


def _as_json(row: RecordingPolicy) -> dict[str, Any]:
    task = str(row.task.id) if row.task else None
    return {"mode": row.mode, "share": row.share, "task": task, "idle_seconds": row.idle_seconds}


def _in_words(row: RecordingPolicy, loop: Loop) -> str:
    if row.mode == "off":
        return "off: nothing is recorded, and so nothing learned"
    if row.task is None:
        return "what asks to be stored" if row.mode == "asked" else "requests that name their task (X-Memgen-Task)"
    task = f" as {row.task.name}"
    if row.task_id != loop.task_id:
        command = f"memgen recording set all --adapter {loop.adapter.name} --task {loop.task.name}"
        task += f", and not as {loop.task.name}, which this loop learns (`{command}`)"
    if row.mode == "asked":
        return f"what asks to be stored{task}"
    share = "all requests" if row.share == 1 else f"{100 * row.share:g}% of the sessions"
    return f"{share}{task}, but those with `store: false`"
