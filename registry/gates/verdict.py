"""The verdict on a version: what its gate says and, where a person was asked, what that person said."""

import uuid
from collections.abc import Collection
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from registry.models import Gate, Version

Verdict = Literal["unchecked", "waiting", "passed", "rejected"]
"""`waiting` for a person's yes, where the gate's policy asks for one."""


def gate_of(session: Session, version: Version) -> Gate | None:
    return session.scalars(select(Gate).where(Gate.version_id == version.id)).one_or_none()


def gates_of(session: Session, versions: Collection[Version]) -> dict[uuid.UUID, Gate]:
    """By version, with the champions that they were compared with; what was not judged yet is left out."""
    query = select(Gate).where(Gate.version_id.in_([version.id for version in versions]))
    return {gate.version_id: gate for gate in session.scalars(query.options(joinedload(Gate.champion)))}


def verdict(gate: Gate | None) -> Verdict:
    """Of the gate and, where its policy is `manual`, of the person who was asked."""
    if gate is None:
        return "unchecked"
    if gate.decision is not None:
        return "passed" if gate.decision.approved else "rejected"
    if gate.passed and gate.policy == "manual":
        return "waiting"
    return "passed" if gate.passed else "rejected"
