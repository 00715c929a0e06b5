"""The recording policy that a loop sets, and what a deletion of the loop takes back.

A loop learns from what is recorded, so it records all requests of its adapter (`store: false` still keeps one out),
under its task. A policy that the adapter has already stays, unless another one is asked for.
"""

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy.orm import Session

from registry.models import Loop, RecordingPolicy
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
        return "kept", _in_words(present)
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
        return "kept", _in_words(row)
    former = loop.setup.get("recording", {"before": before})
    loop.setup = {**loop.setup, "recording": {"before": former["before"], "after": after}}
    return ("made" if before is None else "changed"), _in_words(row)


def restore_recording(session: Session, loop: Loop, *, actor: str) -> list[str]:
    """Take back the policy that the loop set, if it still stands. Returns what stays, for people."""
    row = find_policy(session, loop.project_id, loop.adapter)
    mine = loop.setup.get("recording")
    if row is None:
        return []
    if mine is None or mine["after"] != _as_json(row):
        return [f"the recording policy of {loop.adapter.name}, which the loop did not make: {_in_words(row)}"]
    before = mine["before"]
    if before is None:
        session.delete(row)
        session.flush()
        return []
    row.mode, row.share, row.idle_seconds, row.actor = before["mode"], before["share"], before["idle_seconds"], actor
    session.flush()
    return [f"the recording policy of {loop.adapter.name}, as it was before the loop: {_in_words(row)}"]


def _as_json(row: RecordingPolicy) -> dict[str, Any]:
    task = str(row.task.id) if row.task else None
    return {"mode": row.mode, "share": row.share, "task": task, "idle_seconds": row.idle_seconds}


def _in_words(row: RecordingPolicy) -> str:
    if row.mode == "off":
        return "off: nothing is recorded"
    task = f" as {row.task.name}" if row.task else ""
    if row.mode == "asked":
        return f"what asks to be stored{task}"
    share = "all requests" if row.share == 1 else f"{100 * row.share:g}% of the sessions"
    return f"{share}{task}, but those with `store: false`"
