"""The side of a trajectory: held out for suites, or trained on. Knows neither suites nor datasets.

All trajectories of a task that begin alike are on one side, because training reads every supervised turn and not only
the last: with `[q, a]` held out and `[q, a, q2, a2]` trained on, `a` would be tested after it was learned. The side
follows from a hash of the beginning, which is what stands in front of the first answer that tells conversations apart.

That answer is the first assistant turn, whatever its weight: one sender may give weight 0 to a turn that another trains
on. A task whose conversations all open with the same turns says how many with `shared_turns`. A conversation that ends
within those is trained on: it is the same for all, and tests nothing.

Tools are no part of a beginning: a conversation may get more of them as it goes on.

Two beginnings are one where any base may read them as one. Chat templates show `developer` as `system`, a system
message as the begin of the user's, neighbours of one role as one message, and texts without the spaces around them. So
a beginning is the texts between answers; who said them, and how their content is written, does not count.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import Text, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from registry.models import Task, Trajectory
from registry.trajectories.conversations import last_supervised

MIN_ALIKE = 20
"""Least number of trajectories that begin alike for a warning."""


def beginning_hash(messages: list[dict[str, Any]], shared_turns: int = 0) -> str | None:
    """Hash of what stands in front of the first assistant turn after the shared ones. 64 hex digits.

    Only what reaches the model counts: texts, and calls without their random ids. None if the last supervised turn is
    one of the shared ones. Stored rows have it: whoever changes it migrates them, as revision 0011 did.
    """
    first = first_answer(messages, shared_turns)
    if first is None or last_supervised(messages) < first:
        return None
    beginning: list[list[Any]] = [["asked", ""]]
    for message in messages[:first]:
        text = _text(message)
        if message["role"] == "assistant":
            beginning += [["answered", text, _calls(message)], ["asked", ""]]
        elif text:
            beginning[-1][1] = f"{beginning[-1][1]}\n\n{text}" if beginning[-1][1] else text
    # ASCII, because arguments of calls may hold halves of characters.
    return hashlib.sha256(json.dumps(beginning, separators=(",", ":")).encode()).hexdigest()


def first_answer(messages: Sequence[Mapping[str, Any]], shared_turns: int) -> int | None:
    """Index of the first assistant turn after the shared ones; None if there is none."""
    turns = (place for place, message in enumerate(messages) if message["role"] == "assistant")
    return next(islice(turns, shared_turns, None), None)


def held_out(task_name: str, beginning: str | None, share: float) -> bool:
    """Whether a beginning is held out: the same on every installation, and true for about `share` of them."""
    if beginning is None:
        return False
    digest = hashlib.sha256(f"{task_name}\n{beginning}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def stored_sides(session: Session, task_id: uuid.UUID, beginnings: Iterable[str | None]) -> dict[str, bool]:
    """Whether the stored trajectories with each beginning are held out; beginnings that no stored one has are left out.

    A new trajectory goes to the side of the stored ones that begin like it, even where `held_out` says otherwise: the
    task's share may have been another when they came.
    """
    wanted = sorted({beginning for beginning in beginnings if beginning is not None})
    if not wanted:
        return {}
    rows = session.execute(
        select(Trajectory.beginning_hash, func.bool_or(Trajectory.held_out))
        .where(Trajectory.task_id == task_id, Trajectory.beginning_hash == func.any(literal(wanted, ARRAY(Text))))
        .group_by(Trajectory.beginning_hash)
    )
    return {beginning: side for beginning, side in rows if beginning is not None}


@dataclass(frozen=True)
class SharedPrefixGroup:
    """A beginning that more than half of a task's trajectories share."""

    task: str
    count: int
    total: int
    held_out: bool
    shared_turns: int
    within: bool
    """Whether they end within the turns that the task's conversations share."""

    def __str__(self) -> str:
        begin = f"{self.count} of {self.total} trajectories of task {self.task!r} "
        if self.within:
            return (
                begin + f"end within the first {self.shared_turns} assistant turns, which all of its conversations "
                "share by its `shared_turns`; they are trained on and never held out"
            )
        side = "held out, and not trained on" if self.held_out else "trained on, and not held out"
        return (
            begin + f"begin alike and so are all on one side: {side}. If agents of this task always open so, send "
            f"them to a task made with shared_turns {self.shared_turns + 1} or more: the number of assistant turns "
            "until conversations differ"
        )


def find_shared_prefix_group(session: Session, task: Task) -> SharedPrefixGroup | None:
    """The beginning that more than half of a task's trajectories share, if at least `MIN_ALIKE` do; else None."""
    alike = func.count()
    largest = session.execute(
        select(Trajectory.beginning_hash, alike, func.sum(alike).over(), func.bool_or(Trajectory.held_out))
        .where(Trajectory.task_id == task.id)
        .group_by(Trajectory.beginning_hash)
        .order_by(alike.desc())
        .limit(1)
    ).one_or_none()
    if largest is None:
        return None
    beginning, count, total, side = largest
    if count < MIN_ALIKE or 2 * count <= total:
        return None
    return SharedPrefixGroup(task.name, count, int(total), side, task.shared_turns, beginning is None)


def _text(message: Mapping[str, Any]) -> str:
    """As a model is shown it. Fields beside a checked content may hold anything; what is no text is none."""
    content, refusal = message.get("content"), message.get("refusal")
    if isinstance(content, list):
        content = "".join(part[part["type"]] for part in content if part["type"] in ("text", "refusal"))
    text = content or refusal
    return text.strip() if isinstance(text, str) else ""


def _calls(message: Mapping[str, Any]) -> list[list[str]]:
    """Name and arguments of each call: as sorted JSON where they are JSON, else as they stand."""
    made, older = list(message.get("tool_calls") or ()), message.get("function_call")
    if isinstance(older, dict):
        made.append({"function": older})
    calls = []
    for call in made:
        function = call.get("function") or call.get("custom") or {}
        given = function.get("arguments", function.get("input"))
        try:
            arguments = json.loads(given.strip() or "{}") if isinstance(given, str) else given
            written = json.dumps(arguments or {}, sort_keys=True)
        except (ValueError, RecursionError):
            written = str(given)
        calls.append([str(function.get("name")), written])
    return calls
