"""Audit of a verdict: the items that a gate compared, one by one, as the evaluations kept them. Scores nothing anew."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.errors import GateNotFound, TaskNotFound
from registry.gates.evaluations import find_evaluation, subject_of
from registry.gates.verdict import gate_of
from registry.models import Gate, Suite, SuiteItem, Trajectory, Version

Flip = Literal["better", "worse"]


@dataclass(frozen=True)
class ComparedItem:
    """One held-out item under champion and candidate."""

    place: int
    """Place in the suite."""
    trajectory_id: uuid.UUID | None
    """None if the trajectory was deleted since."""
    champion: dict[str, Any]
    """`{"score", "answer"}` from the champion's evaluation, with `note` and `left_out` where it could not be judged."""
    candidate: dict[str, Any]

    @property
    def flipped(self) -> Flip | None:
        """Whether the candidate scores better or worse than the champion; None if both score the same, or the item was
        left out for one of them."""
        if self.champion.get("left_out") or self.candidate.get("left_out"):
            return None
        change = self.candidate["score"] - self.champion["score"]
        return "better" if change > 0 else "worse" if change < 0 else None


def recorded_gate(session: Session, version: Version) -> Gate:
    """Raises GateNotFound."""
    gate = gate_of(session, version)
    if gate is None:
        raise GateNotFound(
            f"the gate of {version.adapter.name}@{version.number} has not run yet; its job's events say how far it is. "
            f"If that job has failed, `memgen gate run {version.adapter.name} {version.number}` has it judged"
        )
    return gate


def suite_numbers(session: Session, gate: Gate) -> dict[str, int]:
    """Number of the suite that the gate compared on, by task."""
    ids = {c["task"]: uuid.UUID(c["suite"]) for c in gate.comparisons if c.get("suite")}
    found = {suite.id: suite.number for suite in session.scalars(select(Suite).where(Suite.id.in_(ids.values())))}
    return {task: found[suite] for task, suite in ids.items() if suite in found}


def compared_items(session: Session, version: Version, task: str) -> list[ComparedItem]:
    """Every item that the gate compared on a task, by place; empty if no answers were kept.

    Raises:
        GateNotFound: the gate has not run.
        TaskNotFound: the gate did not compare on this task.
    """
    gate = recorded_gate(session, version)
    comparison = next((c for c in gate.comparisons if c["task"] == task), None)
    if comparison is None:
        known = [c["task"] for c in gate.comparisons]
        raise TaskNotFound(f"the gate of {version.adapter.name}@{version.number} compared {known}, not {task!r}")
    if not comparison.get("suite"):
        return []
    suite = uuid.UUID(comparison["suite"])
    baseline, own = (
        find_evaluation(session, subject_of(version.adapter, subject), suite) for subject in (gate.champion, version)
    )
    if baseline is None or own is None:
        return []
    kept = session.scalars(select(SuiteItem).where(SuiteItem.suite_id == suite))
    trajectories = {item.place: item.trajectory_id for item in kept}
    return [
        ComparedItem(place, trajectories.get(place), before, after)
        for place, (before, after) in enumerate(zip(baseline.items, own.items, strict=True))
    ]


def flipped_only(pairs: Sequence[ComparedItem], which: Flip | Literal["any"] | None) -> list[ComparedItem]:
    """The items that flipped in the way `which` names; all items for None."""
    if which is None:
        return list(pairs)
    return [pair for pair in pairs if (pair.flipped is not None if which == "any" else pair.flipped == which)]


@dataclass(frozen=True)
class OtherAnswers:
    """What else is known of an item that the gate compared."""

    base: dict[str, Any] | None
    """The bare base's, as the champion's in `ComparedItem`; None where it was not evaluated on the suite."""
    reference: str | None
    """The answer that the trajectory itself ends with; None if it was deleted since."""


def other_answers(
    session: Session, version: Version, task: str, items: Sequence[tuple[int, uuid.UUID | None]]
) -> list[OtherAnswers]:
    """The other answers to items of `compared_items`, each given by its place and its trajectory."""
    comparison = next(c for c in recorded_gate(session, version).comparisons if c["task"] == task)
    evaluation = find_evaluation(session, subject_of(version.adapter, None), uuid.UUID(comparison["suite"]))
    wanted = [trajectory for _, trajectory in items if trajectory is not None]
    rows = session.execute(select(Trajectory.id, Trajectory.messages).where(Trajectory.id.in_(wanted)))
    references = {id_: _last_answer(messages) for id_, messages in rows}
    return [
        OtherAnswers(
            base=evaluation.items[place] if evaluation is not None and place < len(evaluation.items) else None,
            reference=references.get(trajectory) if trajectory is not None else None,
        )
        for place, trajectory in items
    ]


def _last_answer(messages: Sequence[dict[str, Any]]) -> str:
    last: dict[str, Any] = next((each for each in reversed(messages) if each.get("role") == "assistant"), {})
    content, calls = last.get("content"), last.get("tool_calls")
    text = content if isinstance(content, str) else "" if content is None else json.dumps(content, ensure_ascii=False)
    return text + ("\n" + json.dumps(calls, ensure_ascii=False, indent=2) if calls else "")
