"""Target of a plain rollback: the last version that served before and may still serve. Reads only; moves nothing."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from registry.gates.verdict import gate_of, verdict
from registry.models import AliasMove, Version
from registry.versions.state import why_not_servable


@dataclass(frozen=True)
class RollbackTarget:
    target: Version | None
    """None if nothing that served before may serve."""
    skipped: tuple[tuple[Version, str], ...]
    """Versions that served after the target, newest first, each with the reason why it may not serve any more."""


def rollback_target(session: Session, moves: Sequence[AliasMove]) -> RollbackTarget:
    """The target of a rollback after the `moves` of an alias, oldest first and at least one."""
    *earlier, current = serving_stack(moves)
    skipped: dict[uuid.UUID, tuple[Version, str]] = {}
    for version in reversed(earlier):
        if version.id == current.id:
            continue
        why = _why_not(session, version)
        if why is None:
            return RollbackTarget(version, tuple(skipped.values()))
        skipped[version.id] = version, why
    return RollbackTarget(None, tuple(skipped.values()))


def serving_stack(moves: Sequence[AliasMove]) -> list[Version]:
    """Versions that a rollback can return to, the current one last.

    A promotion pushes, a rollback pops to its target: after 1, 2, back to 1, 3 the stack is [1, 3]. Promoting the
    current version again pushes nothing, so that a rollback always goes to another version.
    """
    stack: list[Version] = []
    for move in moves:
        if move.kind == "promotion":
            if not stack or stack[-1].id != move.to_version_id:
                stack.append(move.to_version)
            continue
        while stack and stack[-1].id != move.to_version_id:
            stack.pop()
        if not stack:
            stack.append(move.to_version)
    return stack


def _why_not(session: Session, version: Version) -> str | None:
    """None for a version that passed its gate and may serve."""
    state = verdict(gate_of(session, version))
    if state != "passed":
        return f"{version.adapter.name}@{version.number} is {state}; its gate did not pass"
    return why_not_servable(session, version)
